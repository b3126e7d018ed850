// What the LiveQuery matcher of Parse Server says to pairs of a `where` and an object.
//
// Reads one pair a line, {"where":{..},"object":{..}}, and prints one of match, no match, throws for each.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// Parse Server writes log files from the moment it is loaded.
process.env.PARSE_SERVER_LOGS_FOLDER = 'null';
process.env.PARSE_SERVER_LOG_LEVEL = 'error';
const print = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

const require = createRequire(import.meta.url);
const { matchesQuery } = require('parse-server/lib/LiveQuery/QueryTools.js');
// The matcher warns of every regular expression that is none.
require('parse-server/lib/logger.js').default.warn = () => {};

const answers = [];
for await (const line of createInterface({ input: process.stdin })) {
  const { where, object } = JSON.parse(line);
  try {
    answers.push(matchesQuery(object, where) ? 'match' : 'no match');
  } catch {
    answers.push('throws');
  }
}
print(answers.join('\n') + '\n', () => process.exit(0));
