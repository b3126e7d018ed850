// Reads one case per line and writes one line per failure (or per answer), for js_sdk.rs and differential.rs: what the
// JS SDK writes for a query, what the LiveQuery server's own matcher and hash make of ours, and what MongoDB would find.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { Query as MongoQuery } from 'mingo';

// Parse Server writes its log into the working directory unless told otherwise.
process.env.PARSE_SERVER_LOGS_FOLDER = 'null';

const require = createRequire(import.meta.url);
const Parse = require('parse/node');
// Not exported by the package, hence by path.
const { matchesQuery, queryHash } = require('./node_modules/parse-server/lib/LiveQuery/QueryTools.js');
const mongo = require('./node_modules/parse-server/lib/Adapters/Storage/Mongo/MongoTransform.js');

Parse.initialize('app');

// Lists whose order means nothing.
const UNORDERED = ['$and', '$or', '$nor', '$in', '$nin', '$containedBy'];

const modes = { toJson, hash, match, find, findShared, judge };
const lines = readFileSync(0, 'utf8').split('\n').filter(line => line);
for (const answer of modes[process.argv[2]](lines.map(line => JSON.parse(line)))) {
  console.log(JSON.stringify(answer));
}

// `ours` equals what the JS SDK writes, with the same order of members.
function* toJson(cases) {
  for (const { program, ours } of cases) {
    const theirs = JSON.stringify(build(program).toJSON());
    const normalized = JSON.stringify(JSON.parse(ours));
    if (theirs !== normalized) {
      yield { program, theirs, ours: normalized };
    }
  }
}

function build({ className, combine, of, calls }) {
  const query = combine ? Parse.Query[combine](...of.map(build)) : new Parse.Query(className);
  for (const [method, ...args] of calls) {
    query[method](...args.map(value => (value?.program ? build(value.program) : Parse._decode('', value))));
  }
  return query;
}

// No two queries that differ in more than the order of conditions share a hash.
function* hash(cases) {
  const seen = new Map();
  for (const where of cases) {
    const key = queryHash({ className: 'Game', where });
    const meaning = canonical(where);
    if (!seen.has(key)) {
      seen.set(key, { where, meaning });
    } else if (seen.get(key).meaning !== meaning) {
      yield { key, where, other: seen.get(key).where };
    }
  }
}

function canonical(value, unordered = false) {
  if (Array.isArray(value)) {
    const items = value.map(item => canonical(item));
    return `[${(unordered ? items.sort() : items).join()}]`;
  }
  if (value && typeof value === 'object') {
    const keys = Object.keys(value).sort();
    return `{${keys.map(key => `${JSON.stringify(key)}:${canonical(value[key], UNORDERED.includes(key))}`).join()}}`;
  }
  return JSON.stringify(value);
}

// The matcher gives for `live` what MongoDB finds for `rest`.
function* match(cases) {
  for (const { rest, live, objects, fields } of cases) {
    const found = mongoMatcher(rest, objects, fields);
    for (const [index, object] of objects.entries()) {
      let matched;
      try {
        matched = matchesQuery(structuredClone(object), live);
      } catch (error) {
        matched = `throws ${error.message}`;
      }
      if (matched !== found[index]) {
        yield { rest, live, object: named(object, live), matched, found: found[index] };
      }
    }
  }
}

// What the matcher says of each object, and what MongoDB finds, or why it does not look.
function* judge(cases) {
  for (const { rest, live, objects, fields } of cases) {
    const matched = objects.map(object => {
      try {
        return matchesQuery(structuredClone(object), live);
      } catch (error) {
        return `throws ${error.message}`;
      }
    });
    let found;
    try {
      found = mongoMatcher(structuredClone(rest), objects, structuredClone(fields));
    } catch (error) {
      found = `refused: ${error.message}`;
    }
    yield { matched, found };
  }
}

// Whether MongoDB finds each of the objects.
function* find(cases) {
  for (const { rest, objects, fields } of cases) {
    yield mongoMatcher(rest, objects, fields);
  }
}

// The same for many queries of the objects that the first line has; null for a query that is refused.
function* findShared([{ objects, fields }, ...cases]) {
  for (const { rest } of cases) {
    let found = null;
    try {
      found = mongoMatcher(rest, objects, structuredClone(fields));
    } catch {
      // Told by null.
    }
    yield found;
  }
}

// The fields that the query names, for the report.
function named(object, live) {
  const text = JSON.stringify(live);
  return Object.fromEntries(Object.entries(object).filter(([name]) => text.includes(`"${name}`)));
}

function mongoMatcher(rest, objects, types) {
  const fields = Object.fromEntries(
    Object.entries(types).map(([name, type]) => [name, type === 'Pointer' ? { type, targetClass: 'Team' } : { type }]),
  );
  const schema = { fields };
  const documents = objects.map(object => ({ ...object }));
  const where = mongo.transformWhere('Game', withoutGeo(rest, documents, fields), schema);
  completeMingo(where);
  const query = new MongoQuery(where);
  return documents.map(object => {
    const document = mongo.parseObjectToMongoObjectForCreate('Game', structuredClone(object), schema);
    // What an update stores; a null that comes with the creation is kept under the wrong name.
    for (const [name, { type }] of Object.entries(fields)) {
      if (type === 'Pointer' && document[name] === null) {
        document[`_p_${name}`] = null;
        delete document[name];
      }
    }
    return query.test(document);
  });
}

// mingo knows no geo operators: their answers become boolean fields.
function withoutGeo(where, documents, fields) {
  const result = {};
  for (const [key, constraint] of Object.entries(where)) {
    if (['$or', '$and', '$nor'].includes(key)) {
      result[key] = constraint.map(part => withoutGeo(part, documents, fields));
      continue;
    }
    const rest = {};
    let isGeo = false;
    for (const [operator, value] of Object.entries(constraint ?? {})) {
      const answer = geoAnswer(operator, value, constraint);
      if (!answer) {
        rest[operator] = value;
        continue;
      }
      isGeo = true;
      if (answer === true) {
        continue;
      }
      const name = `geo${Object.keys(fields).length}`;
      fields[name] = { type: 'Boolean' };
      result[name] = true;
      for (const document of documents) {
        const held = key.split('.').reduce((value, part) => value?.[part], document);
        const type = operator === '$geoIntersects' ? 'Polygon' : 'GeoPoint';
        document[name] = Boolean(held?.__type === type && answer(held));
      }
    }
    if (!isGeo) {
      result[key] = constraint;
    } else if (Object.keys(rest).length) {
      result[key] = rest;
    }
  }
  return result;
}

function geoAnswer(operator, value, constraint) {
  const distance = (point, center) => new Parse.GeoPoint(point).radiansTo(new Parse.GeoPoint(center));
  switch (operator) {
    case '$maxDistance':
      return true;
    case '$nearSphere':
      return point => distance(point, value) <= (constraint.$maxDistance ?? Infinity);
    case '$within': {
      const [southwest, northeast] = value.$box;
      return ({ latitude, longitude }) =>
        southwest.latitude <= latitude &&
        latitude <= northeast.latitude &&
        southwest.longitude <= longitude &&
        longitude <= northeast.longitude;
    }
    case '$geoWithin': {
      if (value.$centerSphere) {
        const [[longitude, latitude], radians] = value.$centerSphere;
        return point => distance(point, { latitude, longitude }) <= radians;
      }
      const polygon = new Parse.Polygon(value.$polygon.map(point => [point.latitude, point.longitude]));
      return point => polygon.containsPoint(new Parse.GeoPoint(point));
    }
    case '$geoIntersects':
      return area => new Parse.Polygon(area.coordinates).containsPoint(new Parse.GeoPoint(value.$point));
    default:
      return null;
  }
}

// What MongoDB does and mingo does not: \Q..\E and characters beyond the BMP in regular expressions, and $all as the $and of equalities that it is by
// MongoDB's manual, for missing fields too.
function completeMingo(where) {
  for (const [key, value] of Object.entries(where)) {
    if (key === '$regex') {
      where[key] = value.replace(/\\Q(.*?)\\E/gs, (_, text) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
      const flags = `${where.$options ?? ''}u`;
      try {
        new RegExp(where[key], flags);
        where.$options = flags;
      } catch {
        // What PCRE takes as it is written, and JavaScript only without the flag.
      }
    } else if (Array.isArray(value?.$all) && value.$all.length) {
      const equalities = value.$all.map(item => ({ [key]: item }));
      delete value.$all;
      where.$and = [...(where.$and ?? []), ...equalities];
      if (Object.keys(value).length) {
        completeMingo(value);
      } else {
        delete where[key];
      }
    } else if (value && typeof value === 'object' && value.constructor === Object) {
      completeMingo(value);
    } else if (Array.isArray(value)) {
      value.filter(item => item?.constructor === Object).forEach(completeMingo);
    }
  }
}
