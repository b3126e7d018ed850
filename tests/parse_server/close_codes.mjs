// A server on `ws`, as Parse Server has it: it says farewell to each client that connects, with the code that the path of
// its URL names, and tells over HTTP what code each connection ended with in its own eyes.
//
// Ends when its stdin ends, so that it does not outlive the test that started it.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const ended = [];
const server = createServer((request, response) => response.end(JSON.stringify(ended)));
new WebSocketServer({ server }).on('connection', (socket, request) => {
  const code = Number(request.url.slice(1));
  socket.on('error', () => {});
  socket.on('close', got => ended.push([code, got]));
  socket.on('message', () => socket.close(code, 'as the test wants it'));
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
process.stdin.resume();
