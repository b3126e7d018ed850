// The JS SDK as a client of the benchmark; prints a report of the form that `Report` in clients.rs has.
// Arguments: the folder with the package `parse`, what to do, the URL, how many subscriptions there are, and the ports.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [packages, work, url, subscriptions, ports] = process.argv.slice(2);
const Parse = createRequire(join(packages, 'parse', 'index.js'))('parse/node');

Parse.initialize('app');
const client = new Parse.LiveQueryClient({ applicationId: 'app', serverURL: url });
const query = number => new Parse.Query('Game').equalTo('room', number + 1);
const works = { get: flood, latency: flood, subscriptions: countOpen, listeners: countOpen, live_set: findAll };
let sink;

works[work]();
client.open();

function report(values) {
  console.log(JSON.stringify(values));
  process.exit();
}

function flood() {
  let started;
  let cpu;
  let latencies = [];
  const subscription = client.subscribe(query(0));
  const listener = work === 'latency'
    ? object => {
        const now = performance.timeOrigin + performance.now();
        latencies.push(now * 1000 - Number(object.get('sentAt')) / 1000);
      }
    : object => {
        sink = object.get('score');
      };
  subscription.on('create', listener);
  subscription.on('update', listener);
  subscription.on('enter', () => {
    latencies = [];
    cpu = process.cpuUsage();
    started = performance.now();
  });
  subscription.on('leave', object => {
    const seconds = (performance.now() - started) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    report({ events: object.get('sent'), seconds, cpuSeconds: (user + system) / 1e6, latencies, sink });
  });
}

// The SDK says `open` 200 ms after the acknowledgement; that is no work, and is taken off.
const OPEN_DELAY = 200;

async function countOpen() {
  const count = Number(subscriptions);
  const resident = [];
  let opened = 0;
  let allOpened;
  const subscribe = number => {
    const subscription = client.subscribe(query(number));
    if (work === 'listeners') {
      for (const kind of ['create', 'update', 'delete']) {
        subscription.on(kind, () => {
          sink = allOpened;
        });
      }
    }
    subscription.on('open', () => {
      opened += 1;
      if (opened % count === 0) {
        allOpened();
      }
    });
    return subscription;
  };
  await subscribe(0).subscribePromise;
  await new Promise(resolve => setTimeout(resolve, OPEN_DELAY));
  resident.push(process.memoryUsage.rss());
  const started = performance.now();
  const acknowledged = await new Promise(resolve => {
    allOpened = () => resolve((performance.now() - started - OPEN_DELAY) / 1000);
    for (let number = 1; number < count; number += 1) {
      subscribe(number);
    }
  });
  resident.push(process.memoryUsage.rss());
  const connected = await new Promise(resolve => client.on('open', () => resolve(performance.now())));
  const restored = await new Promise(resolve => {
    allOpened = () => resolve((performance.now() - connected - OPEN_DELAY) / 1000);
  });
  resident.push(process.memoryUsage.rss());
  report({ acknowledged, restored, resident });
}

async function findAll() {
  Parse.serverURL = `http://127.0.0.1:${JSON.parse(ports).rest}/parse`;
  const resident = [process.memoryUsage.rss()];
  const started = performance.now();
  const all = [];
  for (;;) {
    const query = new Parse.Query('Game').ascending('objectId').limit(1000);
    if (all.length > 0) {
      query.greaterThan('objectId', all.at(-1).id);
    }
    const page = await query.find();
    all.push(...page);
    if (page.length < 1000) {
      break;
    }
  }
  const seconds = (performance.now() - started) / 1000;
  resident.push(process.memoryUsage.rss());
  report({ events: all.length, seconds, resident });
}
