// A real Parse Server with LiveQuery for the tests of this folder; it must not know what any test is about.
//
//   node server.mjs '{"port":1337,"dataDir":null,"classNames":[".*"],"javascriptKey":null,"websocketTimeout":10000}'
//
// Prints one line of JSON, {"port":N}, on stdout once it serves; everything else goes to stderr.
// Ends when its stdin ends, so that it does not outlive the test that started it.

import http from 'node:http';
import Module, { createRequire } from 'node:module';

import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';

import { filesAdapter } from './files.cjs';

const APPLICATION_ID = 'test-app';
const MASTER_KEY = 'test-master-key';
const MAINTENANCE_KEY = 'test-maintenance-key';
const HOST = '127.0.0.1';

const options = {
  port: 0,
  // A folder, or null for a database in memory.
  dataDir: null,
  // The port of a database that other servers use as well (database.mjs), in place of one of its own.
  databasePort: null,
  // The URI of a database that is there already: MongoDB, say.
  databaseURI: null,
  // The URL of the Redis through which several servers tell each other of their events.
  redisURL: null,
  // Regular expressions, each matched against the whole class name.
  classNames: ['.*'],
  // A client must present this key if it is set. REST needs the master key or no key at all.
  javascriptKey: null,
  // Milliseconds between the pings of the LiveQuery server.
  websocketTimeout: 10_000,
  // Milliseconds for which the LiveQuery server remembers whose a session token is.
  cacheTimeout: 5_000,
  // Whether who creates an object may choose its id.
  customIds: false,
  // Further settings of Parse Server.
  settings: {},
  // The folder of another version of the package `router` than the one that is installed.
  router: null,
  ...JSON.parse(process.argv[2] ?? '{}'),
};

// Parse Server writes log files from the moment it is loaded, so it is loaded after this line, and after the choice of
// its router.
process.env.PARSE_SERVER_LOGS_FOLDER = 'null';
if (options.router) {
  const resolve = Module._resolveFilename;
  // With the parts of the package that Parse Server loads by themselves.
  Module._resolveFilename = (name, ...others) => resolve(name.replace(/^router(?=\/|$)/, options.router), ...others);
}
const require = createRequire(import.meta.url);
const express = require('express');
const { ParseServer } = require('parse-server');

// Parse Server logs to stdout, which is for the one line that says the port.
const print = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
process.stdin.resume();

let eventsHeldBack = 0;

// The hooks that tests rely on, by the class that they subscribe to.
function cloud(Parse) {
  // A connection is refused by its installation id, or by the name of its user.
  Parse.Cloud.beforeConnect(request => {
    if (request.installationId === 'refused' || request.user?.getUsername().startsWith('refused')) {
      throw new Parse.Error(Parse.Error.OPERATION_FORBIDDEN, 'this connection is refused');
    }
  });
  Parse.Cloud.define('answer', ({ params, user }) => ({ sum: params.a + params.b, user: user ? user.id : null }));
  Parse.Cloud.define('throws', () => {
    throw 'as it should';
  });
  Parse.Cloud.beforeSubscribe('Refused', () => {
    throw new Parse.Error(Parse.Error.OPERATION_FORBIDDEN, 'subscriptions to Refused are refused');
  });
  // Refuses the queries that name the field `forbidden`, and lets the others pass.
  Parse.Cloud.beforeSubscribe('Guarded', request => {
    if (JSON.stringify(request.query.toJSON().where).includes('"forbidden"')) {
      throw new Parse.Error(Parse.Error.INVALID_QUERY, 'forbidden may not be queried');
    }
  });
  // Leave the client time to send more before the subscription is acknowledged.
  for (const className of ['SlowToEnd', 'SlowToUpdate']) {
    Parse.Cloud.beforeSubscribe(className, () => new Promise(resolve => setTimeout(resolve, 300)));
  }
  // The object is there long before the answer is.
  Parse.Cloud.afterSave('SlowToAnswer', () => new Promise(resolve => setTimeout(resolve, 60_000)));
  // Each event takes its own time, so that the later one of an object may come first.
  Parse.Cloud.afterLiveQueryEvent('OutOfOrder', async () => {
    eventsHeldBack += 1;
    await new Promise(resolve => setTimeout(resolve, Math.random() * 500));
    eventsHeldBack -= 1;
  });
  // Some events fail, and some come under another name.
  Parse.Cloud.afterLiveQueryEvent('Renames', request => {
    if (Math.random() < 0.05) {
      throw new Parse.Error(Parse.Error.SCRIPT_FAILED, 'afterLiveQueryEvent failed');
    }
    if (Math.random() < 0.2) {
      const names = request.event === 'delete' ? ['leave', 'update'] : ['update', 'enter', 'leave'];
      request.event = names[Math.floor(Math.random() * names.length)];
    }
  });
  // Some events never come.
  Parse.Cloud.afterLiveQueryEvent('Drops', request => {
    request.sendEvent = Math.random() > 0.1;
  });
  Parse.Cloud.afterLiveQueryEvent('DropsCreate', request => {
    request.sendEvent = request.event !== 'create';
  });
  Parse.Cloud.afterLiveQueryEvent('DropsAll', request => {
    request.sendEvent = false;
  });
  for (const className of ['Throws', 'SetThrows']) {
    Parse.Cloud.afterLiveQueryEvent(className, request => {
      if (request.object.get('fail')) {
        throw new Parse.Error(Parse.Error.SCRIPT_FAILED, 'afterLiveQueryEvent failed');
      }
    });
  }
}

const app = express();
const server = http.createServer(app);
const listen = port =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, HOST, resolve);
  });

const { port } = options;

async function startDatabase() {
  const database = await PGlite.create(options.dataDir ?? 'memory://');
  const postgres = new PGLiteSocketServer({ db: database, host: HOST, port: 0, maxConnections: 20 });
  await postgres.start();
  return postgres.getServerConn();
}
const databaseURI = async () => {
  if (options.databaseURI) {
    return options.databaseURI;
  }
  const address = options.databasePort ? `${HOST}:${options.databasePort}` : await startDatabase();
  return `postgres://postgres:postgres@${address}/postgres`;
};
const redis = options.redisURL ? { redisURL: options.redisURL } : {};

const settings = {
  appId: APPLICATION_ID,
  masterKey: MASTER_KEY,
  maintenanceKey: MAINTENANCE_KEY,
  serverURL: `http://${HOST}:${port}/parse`,
  databaseURI: await databaseURI(),
  // A machine that is busy takes longer than its 100 ms, and the event is lost then (QueryTools.js).
  liveQuery: { classNames: options.classNames, regexTimeout: 0, ...redis },
  cloud,
  filesAdapter,
  allowClientClassCreation: true,
  allowCustomObjectId: options.customIds,
  logLevel: 'error',
  ...options.settings,
};
const parseServer = new ParseServer(settings);
await parseServer.start();

const liveQuery = await ParseServer.createLiveQueryServer(
  server,
  {
    appId: APPLICATION_ID,
    masterKey: MASTER_KEY,
    serverURL: settings.serverURL,
    keyPairs: options.javascriptKey ? { javascriptKey: options.javascriptKey } : {},
    websocketTimeout: options.websocketTimeout,
    cacheTimeout: options.cacheTimeout,
    ...redis,
  },
  settings
);

// How many WebSockets were asked for, by request target: a test that counts its connections uses a target of its own.
const upgrades = {};
server.on('upgrade', request => {
  upgrades[request.url] = (upgrades[request.url] ?? 0) + 1;
});

app.get('/test/connections', (_, response) => {
  response.json(upgrades);
});
app.get('/test/events-held-back', (_, response) => {
  response.json(eventsHeldBack);
});
app.get('/test/livequery', (_, response) => {
  const subscriptions = [];
  for (const bySameQuery of liveQuery.subscriptions.values()) {
    for (const { className, query, clientRequestIds } of bySameQuery.values()) {
      for (const [clientId, requestIds] of clientRequestIds) {
        for (const requestId of requestIds) {
          subscriptions.push({ className, where: query, clientId, requestId });
        }
      }
    }
  }
  response.json(subscriptions);
});
app.use('/parse', parseServer.app);

// Last, since an upgrade before LiveQuery is there would be answered with HTTP 404.
await listen(port);
print(`${JSON.stringify({ port })}\n`);
