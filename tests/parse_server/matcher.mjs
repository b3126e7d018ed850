// What the LiveQuery matcher of Parse Server says to pairs of a `where` and an object.
//
// Reads one pair a line, {"where":{..},"object":{..}}, and prints one of match, no match, throws for each; with
// {"where":{..},"objects":[..]}, one letter for each object: m, n or t; with "before":{..} as well, a d for an object
// that is judged otherwise after that other where was asked. With {"hash":{..}}, prints its hash.
//
//   node matcher.mjs [folder of the installation, by default this one]

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

// Parse Server writes log files from the moment it is loaded.
process.env.PARSE_SERVER_LOGS_FOLDER = 'null';
process.env.PARSE_SERVER_LOG_LEVEL = 'error';
const print = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

const folder = process.argv[2] ? pathToFileURL(`${process.argv[2]}/`) : import.meta.url;
const require = createRequire(folder);
// By path, since some versions export no more than their main module.
const { matchesQuery, queryHash } = require('./node_modules/parse-server/lib/LiveQuery/QueryTools.js');
// The matcher warns of every regular expression that is none.
require('./node_modules/parse-server/lib/logger.js').default.warn = () => {};

const judge = (where, object) => {
  try {
    return matchesQuery(object, where) ? 'match' : 'no match';
  } catch {
    return 'throws';
  }
};

const answers = [];
for await (const line of createInterface({ input: process.stdin })) {
  const { where, object, objects, before, hash } = JSON.parse(line);
  if (hash) {
    answers.push(JSON.stringify(queryHash({ className: 'Game', where: hash })));
  } else if (objects) {
    const letters = objects.map(object => {
      // Before 6.1 all subscriptions share one object, whose dates the matcher turns into others (QueryTools.js).
      const shared = before && JSON.parse(JSON.stringify(object));
      const [letter] = judge(where, object);
      if (!before) {
        return letter;
      }
      judge(before, shared);
      return judge(where, shared)[0] === letter ? letter : 'd';
    });
    answers.push(letters.join(''));
  } else {
    answers.push(judge(where, object));
  }
}
print(answers.join('\n') + '\n', () => process.exit(0));
