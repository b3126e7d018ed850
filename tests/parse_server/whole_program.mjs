// A program on the JS SDK that signs up, saves, finds, subscribes and deletes, for whole_program.rs. It must not know which
// server it talks to.
//
//   node whole_program.mjs http://127.0.0.1:1337/parse [--without-functions]
//
// Prints a line of JSON for each step that came to something else than it should, and "done" at the end.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const Parse = require('parse/node');

const url = process.argv[2];
Parse.initialize('test-app', 'test-javascript-key');
Parse.serverURL = url;
Parse.liveQueryServerURL = url.replace('http', 'ws');
Parse.User.enableUnsafeCurrentUser();

const name = `js-${Math.random()}`;
const code = async promise => {
  try {
    await promise;
  } catch (error) {
    return error.code;
  }
  return 'no error';
};

const ann = await Parse.User.signUp(name, 'a password', { email: `${name}@example.com` });
assert.equal(await code(Parse.User.signUp(name, 'another')), 202);
await Parse.User.logOut();
assert.equal(await code(Parse.User.logIn(name, 'wrong')), 101);
const again = await Parse.User.logIn(name, 'a password');
assert.equal(again.id, ann.id);
assert.equal((await Parse.User.current().fetch()).get('email'), `${name}@example.com`);
assert.equal((await Parse.Session.current()).get('user').id, ann.id);

const Game = Parse.Object.extend('Game');
const heard = [];
const waiting = [];
const hear = kind => object => {
  heard.push(`${kind} ${object.get('title')} ${object.get('score')}`);
  waiting.splice(0).forEach(wake => wake());
};
const query = new Parse.Query(Game).equalTo('of', name).greaterThan('score', 0);
const subscription = await query.subscribe();
for (const kind of ['create', 'update', 'enter', 'leave', 'delete']) {
  subscription.on(kind, hear(kind));
}
const hears = async expected => {
  while (heard.length < expected.length) {
    await new Promise(wake => waiting.push(wake));
  }
  assert.deepEqual(heard.splice(0), expected);
};

const game = new Game({ of: name, title: 'chess', score: 1, tags: ['a'], owner: again });
game.setACL(new Parse.ACL(again));
game.set('when', new Date(0));
game.set('place', new Parse.GeoPoint(1, 2));
await game.save();
await hears(['create chess 1']);
game.increment('score', 2);
game.addUnique('tags', 'b');
game.unset('when');
await game.save();
assert.equal(game.get('score'), 3);
await hears(['update chess 3']);
await game.save({ score: 0 });
await hears(['leave chess 0']);
await game.save({ score: 5 });
await hears(['enter chess 5']);

const found = await query.find();
assert.deepEqual(found.map(one => [one.id, one.get('tags'), one.get('when')]), [[game.id, ['a', 'b'], undefined]]);
assert.ok(found[0].get('place').latitude === 1);
assert.equal(await query.count(), 1);
assert.equal((await new Parse.Query(Game).get(game.id)).get('score'), 5);
assert.equal(await code(game.save({ score: 'five' })), 111);
game.revert();
assert.equal(await code(new Parse.Query(Game).get('nonsense')), 101);

// Many at once, and a relation to them.
const players = ['ann', 'bob', 'eve'].map(player => new Parse.Object('Player', { name: player }));
await Parse.Object.saveAll(players);
const fresh = Game.createWithoutData(game.id);
fresh.relation('players').add(players);
await fresh.save();
await hears(['update chess 5']);
fresh.relation('players').remove(players[0]);
await fresh.save();
await hears(['update chess 5']);
// Without having seen what the relation leads to.
const related = await Game.createWithoutData(game.id).relation('players').query().ascending('name').find();
assert.deepEqual(related.map(player => player.get('name')), ['bob', 'eve']);
assert.equal((await new Parse.Query(Game).equalTo('players', players[1]).first()).id, game.id);

const role = new Parse.Role(`role-${Math.random()}`.replace('.', '-'), new Parse.ACL(again));
role.getUsers().add(again);
await role.save();

const file = new Parse.File('note.txt', [...Buffer.from('milk')], 'text/plain');
await file.save();
await game.save({ file });
await hears(['update chess 5']);
const held = (await new Parse.Query(Game).get(game.id)).get('file');
assert.equal(await (await fetch(held.url())).text(), 'milk');
if (process.argv[3] !== '--without-functions') {
  assert.deepEqual(await Parse.Cloud.run('answer', { a: 1, b: 2 }), { sum: 3, user: again.id });
  assert.equal(await code(Parse.Cloud.run('throws')), 141);
}

await game.destroy();
await hears(['delete chess 5']);
await Parse.Object.destroyAll(players);
await subscription.unsubscribe();
await Parse.User.logOut();
assert.equal(await query.count(), 0);
console.log('done');
process.exit(0);
