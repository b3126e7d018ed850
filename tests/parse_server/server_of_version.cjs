// A Parse Server of some version with LiveQuery, for versions.rs; it must not know what any test is about. In the
// JavaScript that Node.js 12 understands.
//
//   node server_of_version.cjs '{"folder":"/where/it/is/installed","port":1337,"databaseURI":"postgres://.."}'
//
// Prints one line of JSON, {"port":N}, on stdout once it serves. Ends when its stdin ends.

const http = require('http');
const { createRequire } = require('module');

const { filesAdapter } = require('./files.cjs');

const { folder, port, databaseURI } = JSON.parse(process.argv[2]);
process.env.PARSE_SERVER_LOGS_FOLDER = 'null';
const print = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);
process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
process.stdin.resume();

const load = createRequire(`${folder}/package.json`);
const express = load('express');
const { ParseServer } = load('parse-server');

function cloud(Parse) {
  // From 4.3 on.
  if (Parse.Cloud.beforeSubscribe) {
    Parse.Cloud.beforeSubscribe('Refused', () => {
      throw new Parse.Error(Parse.Error.OPERATION_FORBIDDEN, 'subscriptions to Refused are refused');
    });
  }
  // Before 3.0 a function answers by a second argument.
  Parse.Cloud.define('answer', ({ params, user }, response) => {
    const result = { sum: params.a + params.b, user: user ? user.id : null };
    return response && response.success ? response.success(result) : result;
  });
  Parse.Cloud.define('throws', () => {
    throw 'as it should';
  });
}

const settings = {
  cloud,
  filesAdapter,
  appId: 'test-app',
  masterKey: 'test-master-key',
  serverURL: `http://127.0.0.1:${port}/parse`,
  databaseURI,
  // By name, since old versions take no regular expressions. A machine that is busy takes longer than the 100 ms that
  // new ones give to a match, and the event is lost then.
  liveQuery: { classNames: ['Game', 'Life', 'Note', 'Refused', 'Set'], regexTimeout: 0 },
  allowClientClassCreation: true,
  logLevel: 'error',
  silent: true,
};

// Before 6.0 the list is of single addresses, and an empty one is all of them.
if (Number(require(`${folder}/node_modules/parse-server/package.json`).version.split('.')[0]) >= 6) {
  settings.masterKeyIps = ['0.0.0.0/0', '::/0'];
}

async function main() {
  const app = express();
  const server = http.createServer(app);
  const parseServer = new ParseServer(settings);
  if (parseServer.start) {
    await parseServer.start();
  }
  app.use('/parse', parseServer.app || parseServer);
  const options = {
    appId: settings.appId,
    masterKey: settings.masterKey,
    serverURL: settings.serverURL,
    keyPairs: { javascriptKey: 'test-javascript-key' },
  };
  await new Promise(resolve => server.listen(port, '127.0.0.1', resolve));
  await ParseServer.createLiveQueryServer(server, options, settings);
  print(`${JSON.stringify({ port })}\n`);
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
