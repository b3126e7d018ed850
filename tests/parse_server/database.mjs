// The database of several Parse Servers that share one; it must not know what any test is about.
//
// Prints one line of JSON, {"port":N}, on stdout once it serves. Ends when its stdin ends.

import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';

process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
process.stdin.resume();

const database = await PGlite.create('memory://');
const server = new PGLiteSocketServer({ db: database, host: '127.0.0.1', port: 0, maxConnections: 40 });
await server.start();
const [, port] = server.getServerConn().split(':');
console.log(JSON.stringify({ port: Number(port) }));
