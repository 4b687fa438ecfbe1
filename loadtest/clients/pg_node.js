// node-postgres (pure JavaScript), against whatever PG* of the environment names; prints a transcript that holds nothing accidental.
// TLS as PGSSLMODE says; NODE_PATH must lead to pg, pg-cursor and pg-copy-streams.
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const { once } = require('events')
const { pipeline } = require('stream/promises')
const { Readable, Writable } = require('stream')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

const say = (...words) => console.log(...words)
const md5 = (data) => crypto.createHash('md5').update(data).digest('hex')
const secure = process.env.PGSSLMODE !== 'disable'
const options = (more) => ({
  ssl: secure ? { ca: fs.readFileSync(process.env.PGSSLROOTCERT), rejectUnauthorized: true } : false,
  connectionTimeoutMillis: 20000,
  ...more,
})

function short(value) {
  if (Buffer.isBuffer(value)) return value.length > 60 ? `bytes(${value.length}, md5 ${md5(value)})` : value.toString('hex')
  if (typeof value === 'string' && value.length > 60) return `text(${value.length}, md5 ${md5(value)})`
  if (value instanceof Date) return value.toISOString()
  return JSON.stringify(value)
}

function show(result) {
  for (const one of Array.isArray(result) ? result : [result]) {
    say('  ', one.command, one.rowCount, (one.fields || []).map((field) => `${field.name}:${field.dataTypeID}`).join(','))
    for (const row of one.rows || []) say('    ', Object.values(row).map(short).join(' | '))
  }
}

async function refused(promise) {
  try {
    await promise
    say('   not refused')
  } catch (error) {
    say('   refused:', error.code, error.severity, error.message, error.detail, error.position, error.constraint)
  }
}

async function queries(client) {
  say('== queries')
  show(await client.query("SELECT 1 AS one, 'two' AS two, NULL AS nothing, true AS yes, 1.5::numeric AS n, now() > '2020-01-01' AS later"))
  show(await client.query('SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS c'))
  show(await client.query('SELECT $1::int + 1 AS n, $2::text AS t, $3::bytea AS b, $4::jsonb AS j, $5::text[] AS a, $6::timestamptz AS d', [
    41, 'é 😀', Buffer.from([0, 255, 7]), { k: [1, null] }, ['x', 'y "z"', null], new Date(Date.UTC(2024, 1, 29))]))
  show(await client.query({ text: 'SELECT n, n * 2 AS double FROM generate_series(1, 3) n', rowMode: 'array' }))
  await refused(client.query('SELEKT'))
  await refused(client.query('SELECT $1::int', ['not a number']))
  await refused(client.query('SELECT 1/0; SELECT 2'))
  show(await client.query(''))
}

async function prepared(client) {
  say('== prepared')
  for (let n = 0; n < 5; n++) show(await client.query({ name: 'by name', text: 'SELECT $1::int * 2 AS n', values: [n] }))
  show(await client.query('SELECT name, statement FROM pg_prepared_statements'))
  await refused(client.query({ name: 'broken', text: 'SELECT no_such_column', values: [] }))
  show(await client.query({ name: 'by name', text: 'SELECT $1::int * 2 AS n', values: [21] }))
}

async function queued(client) {
  say('== queued at once')
  const all = []
  for (let n = 0; n < 300; n++) {
    all.push(client.query('SELECT $1::int AS n, repeat($2, $1::int) AS t', [n, 'x']).then((result) => result.rows[0]))
    if (n % 50 === 0) all.push(client.query('SELECT bad').catch((error) => error.code))
  }
  say('  ', md5(JSON.stringify(await Promise.all(all))))
}

async function transactions(client) {
  say('== transactions')
  await client.query('CREATE TEMP TABLE t (n int PRIMARY KEY)')
  await client.query('BEGIN')
  await client.query('INSERT INTO t VALUES (1)')
  await client.query('SAVEPOINT s')
  await refused(client.query('INSERT INTO t VALUES (1)'))
  await refused(client.query('SELECT 1'))
  await client.query('ROLLBACK TO s')
  show(await client.query('INSERT INTO t VALUES (2), (3) RETURNING n'))
  show(await client.query('COMMIT'))
  show(await client.query('SELECT * FROM t ORDER BY n'))
}

async function cursors(client) {
  say('== portals read in parts')
  const cursor = client.query(new Cursor('SELECT n, md5(n::text) AS h FROM generate_series(1, 1000) n'))
  const hash = crypto.createHash('md5')
  for (;;) {
    const rows = await cursor.read(77)
    if (rows.length === 0) break
    hash.update(JSON.stringify(rows))
  }
  say('  ', hash.digest('hex'))
  await cursor.close()
  const left = client.query(new Cursor('SELECT n FROM generate_series(1, 100) n'))
  say('  ', JSON.stringify(await left.read(3)))
  await left.close()
  show(await client.query('SELECT 1 AS after'))
}

async function copying(client) {
  say('== copy')
  await client.query('CREATE TEMP TABLE copied (n int, t text)')
  const lines = function* () { for (let n = 0; n < 20000; n++) yield `${n}\t${md5(String(n))}\n` }
  await pipeline(Readable.from(lines()), client.query(copyFrom('COPY copied FROM STDIN')))
  show(await client.query('SELECT count(*)::int AS n, md5(string_agg(t, $1 ORDER BY n)) AS h FROM copied', [',']))
  const hash = crypto.createHash('md5')
  const sink = new Writable({ write(chunk, _encoding, done) { hash.update(chunk); done() } })
  await pipeline(client.query(copyTo('COPY (SELECT * FROM copied ORDER BY n) TO STDOUT')), sink)
  say('  ', hash.digest('hex'))
  await refused(pipeline(Readable.from(['1\tx\nwrong\n']), client.query(copyFrom('COPY copied FROM STDIN'))))
  show(await client.query('SELECT count(*)::int AS n FROM copied'))
}

async function unasked(client) {
  say('== notifications and notices')
  const heard = []
  client.on('notice', (notice) => heard.push([notice.severity, notice.code, notice.message]))
  await client.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
  say('  ', JSON.stringify(heard))
  const other = new Client(options())
  await other.connect()
  await client.query('LISTEN news')
  for (const text of ['first', 'second', 'é'.repeat(3000)]) {
    const arrived = once(client, 'notification')
    await other.query('SELECT pg_notify($1, $2)', ['news', text])
    const [message] = await arrived
    say('  ', message.channel, short(message.payload))
  }
  await other.end()
}

async function large(client) {
  say('== 50 MB')
  const big = Buffer.alloc(50 * 1024 * 1024, '0123456789abcdef')
  const result = await client.query({ text: 'SELECT md5($1::bytea) AS h, $1::bytea AS b', values: [big], binary: true })
  say('  ', result.rows[0].h, short(result.rows[0].b))
}

async function pooled() {
  say('== pool')
  const pool = new Pool(options({ max: 8 }))
  const sums = await Promise.all([...Array(200).keys()].map((n) => pool.query('SELECT $1::int AS n', [n]).then((result) => result.rows[0].n)))
  say('  ', sums.reduce((a, b) => a + b), pool.totalCount <= 8)
  await pool.end()
}

async function logIns() {
  say('== log-ins that fail')
  for (const wrong of [{ password: 'wrong' }, { user: 'nobody', password: 'x' }, { database: 'no such database' }]) {
    const client = new Client(options(wrong))
    client.on('error', () => {})
    await refused(client.connect())
    await client.end().catch(() => {})
  }
}

async function main() {
  const client = new Client(options({ application_name: 'node é' }))
  await client.connect()
  show(await client.query("SELECT current_setting('application_name') AS name, current_user AS who"))
  for (const part of [queries, prepared, queued, transactions, cursors, copying, unasked, large]) await part(client)
  await client.end()
  await pooled()
  await logIns()
  say('== end')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
