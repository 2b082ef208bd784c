// Tests of how the shim finds the program, and which files it refuses.
'use strict';
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { find } = require('../../dist/find');
const { input } = require('../../dist/shim');

const TARGET = 'x86_64-unknown-linux-gnu';
const PROGRAM = Buffer.from('#!/bin/sh\necho released\n');
const SHA256 = crypto.createHash('sha256').update(PROGRAM).digest('hex');

/** Creates a checkout of the action. Its version is released for the targets in `sha256`. */
function checkout(t, { sha256 = {} } = {}) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'storecache-find-'));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  fs.mkdirSync(path.join(root, 'dist'));
  const version = JSON.stringify({ version: '1.2.3', sha256 });
  fs.writeFileSync(path.join(root, 'dist', 'version.json'), version);
  return root;
}

/** Starts a server that replaces GitHub. Returns its URL and the requests that it receives. */
async function github(t, pages) {
  const asked = [];
  const server = http.createServer((request, response) => {
    asked.push({ url: request.url, authorization: request.headers.authorization });
    const page = pages[request.url];
    if (typeof page === 'function') page(response);
    else if (page) response.end(page);
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  t.after(() => server.closeAllConnections());
  const url = `http://127.0.0.1:${server.address().port}`;
  return { url, asked };
}

function look(root, env, more = {}) {
  const supervise = () => assert.fail('must not build anything');
  return find({ input, supervise, env, root, platform: 'linux', arch: 'x64', ...more });
}

const ASSET = `/me/storecache/releases/download/v1.2.3/storecache-${TARGET}`;

test('a bundled program comes first, for its own processor', async (t) => {
  const root = checkout(t);
  const bundled = path.join(root, 'dist', 'storecache-x86_64');
  fs.writeFileSync(bundled, PROGRAM, { mode: 0o755 });
  assert.equal(await look(root, {}), bundled);
  await assert.rejects(look(root, {}, { arch: 'arm64' }), /no storecache program/);
});

test('the asset of this version is downloaded once, verified and kept', async (t) => {
  const root = checkout(t, { sha256: { [TARGET]: SHA256 } });
  const redirect = (response) => response.writeHead(302, { location: '/elsewhere' }).end();
  const { url, asked } = await github(t, { [ASSET]: redirect, '/elsewhere': PROGRAM });
  const cache = path.join(root, 'tools with space');
  const env = {
    GITHUB_ACTION_REPOSITORY: 'me/storecache',
    GITHUB_SERVER_URL: url,
    RUNNER_TOOL_CACHE: cache,
    GITHUB_TOKEN: 'secret',
  };
  const program = await look(root, env);
  assert.ok(program.startsWith(cache));
  assert.deepEqual(fs.readFileSync(program), PROGRAM);
  assert.equal(fs.statSync(program).mode & 0o777, 0o755);
  assert.deepEqual(fs.readdirSync(path.dirname(program)), ['storecache']);
  assert.ok(asked.every(({ authorization }) => authorization === undefined));

  const before = asked.length;
  assert.equal(await look(root, env), program);
  assert.equal(asked.length, before, 'the downloaded program is used again');
  fs.writeFileSync(program, 'changed since');
  assert.equal(await look(root, env), program);
  assert.deepEqual(fs.readFileSync(program), PROGRAM, 'a changed program is downloaded again');
});

test('a download with other content is never kept', async (t) => {
  const root = checkout(t, { sha256: { [TARGET]: SHA256 } });
  const short = (response) => {
    response.writeHead(200, { 'content-length': PROGRAM.length });
    response.write(PROGRAM.subarray(0, 5), () => response.destroy());
  };
  for (const [page, why] of [
    [Buffer.from('evil'), /wrong SHA-256/],
    [short, /cannot download/],
    [undefined, /HTTP 404/],
  ]) {
    const { url } = await github(t, { [ASSET]: page });
    const cache = path.join(root, 'tools');
    const env = {
      GITHUB_ACTION_REPOSITORY: 'me/storecache',
      GITHUB_SERVER_URL: url,
      RUNNER_TOOL_CACHE: cache,
    };
    await assert.rejects(look(root, env), why);
    assert.ok(!fs.existsSync(cache));
  }
});

test('with a token, a program without an attestation is refused', async (t) => {
  const root = checkout(t, { sha256: { [TARGET]: SHA256 } });
  const api = `/repos/me/storecache/attestations/sha256:${SHA256}`;
  const down = (response) => response.writeHead(502).end();
  for (const [page, refused] of [
    [undefined, true],
    [JSON.stringify({ attestations: [] }), true],
    [JSON.stringify({ attestations: [{}] }), false],
    [down, false],
  ]) {
    const { url, asked } = await github(t, { [ASSET]: PROGRAM, [api]: page });
    const cache = fs.mkdtempSync(path.join(root, 'tools-'));
    const env = {
      GITHUB_ACTION_REPOSITORY: 'me/storecache',
      GITHUB_SERVER_URL: url,
      GITHUB_API_URL: url,
      GITHUB_TOKEN: 'secret',
      RUNNER_TOOL_CACHE: cache,
    };
    if (refused) await assert.rejects(look(root, env), /has not attested/);
    else await look(root, env);
    const question = asked.find((request) => request.url === api);
    assert.equal(question.authorization, 'Bearer secret');
  }
});

test('an input can set the token, and an enterprise server is not asked for attestations', async (t) => {
  const root = checkout(t, { sha256: { [TARGET]: SHA256 } });
  const { url, asked } = await github(t, { [ASSET]: PROGRAM });
  const env = {
    GITHUB_ACTION_REPOSITORY: 'me/storecache',
    GITHUB_SERVER_URL: url,
    GITHUB_API_URL: `${url}/api/v3`,
    INPUT_TOKEN: 'of the job',
    RUNNER_TOOL_CACHE: fs.mkdtempSync(path.join(root, 'tools-')),
  };
  await look(root, env);
  assert.deepEqual(asked.map((request) => request.url), [ASSET]);
  const cache = fs.mkdtempSync(path.join(root, 'tools-'));
  const refused = look(root, { ...env, GITHUB_API_URL: url, RUNNER_TOOL_CACHE: cache });
  await assert.rejects(refused, /has not attested/);
  assert.equal(asked.at(-1).authorization, 'Bearer of the job');
});

test('a version without a release is built from its checkout', async (t) => {
  const root = checkout(t);
  fs.writeFileSync(path.join(root, 'Cargo.toml'), '');
  const calls = [];
  const supervise = async (program, args, { cwd, env }) => {
    calls.push([program, args[0], cwd]);
    assert.ok(!JSON.stringify(env).includes('a key to sign with'));
    fs.mkdirSync(path.join(root, 'target', 'release'), { recursive: true });
    fs.writeFileSync(path.join(root, 'target', 'release', 'storecache'), PROGRAM, { mode: 0o755 });
    return { code: 0 };
  };
  const built = path.join(root, 'target', 'release', 'storecache');
  const keys = { 'INPUT_SIGN-KEY': 'a key to sign with', STORECACHE_SIGN_KEY: 'a key to sign with' };
  for (const env of [{}, { GITHUB_ACTION_REPOSITORY: 'me/storecache', ...keys }]) {
    assert.equal(await look(root, env, { supervise }), built);
  }
  assert.deepEqual(calls[0], ['cargo', 'build', root]);
  const failing = async () => ({ code: 101 });
  await assert.rejects(look(root, {}, { supervise: failing }), /cargo could not build/);
});

test('a checkout that is used by its path is built even if its version is released', async (t) => {
  const root = checkout(t, { sha256: { [TARGET]: SHA256 } });
  fs.writeFileSync(path.join(root, 'Cargo.toml'), '');
  const failing = async () => ({ code: 101 });
  await assert.rejects(look(root, { GITHUB_ACTION_REPOSITORY: '' }, { supervise: failing }), /cargo/);
});

test('other systems are refused', async (t) => {
  const root = checkout(t);
  for (const [platform, arch] of [['win32', 'x64'], ['darwin', 'arm64'], ['linux', 'riscv64']]) {
    await assert.rejects(look(root, {}, { platform, arch }), /runs on Linux/);
  }
});
