// Tests of how the shim runs the program: what it passes on, and how a canceled step ends.
'use strict';
const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');

const MAIN = path.join(__dirname, '..', '..', 'dist', 'main.js');
const POST = path.join(__dirname, '..', '..', 'dist', 'post.js');

/** Creates a directory that is removed at the end of the test. */
function place(t) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'storecache-shim-'));
  t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Creates a program from a shell script. */
function program(directory, script) {
  const file = path.join(directory, 'program of a test');
  fs.writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

/** Starts a part of the step. Its standard error is appended to `said`, and its standard output to `wrote`. */
function start(part, env) {
  const child = spawn(process.execPath, [part], { env: { PATH: process.env.PATH, ...env } });
  const run = { child, said: '', wrote: '' };
  child.stderr.on('data', (data) => (run.said += data));
  child.stdout.on('data', (data) => (run.wrote += data));
  run.ended = once(child, 'close').then(([code, signal]) => ({ code, signal }));
  return run;
}

async function until(what, probe) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const answer = probe();
    if (answer) return answer;
    if (Date.now() > deadline) assert.fail(`waited for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('the program gets the part, the inputs and both outputs, and its exit code becomes that of the step', async (t) => {
  const directory = place(t);
  const script = 'echo "$@"; env | grep ^INPUT_STORE; echo said >&2; exit 3';
  const run = start(MAIN, { INPUT_BINARY: program(directory, script), INPUT_STORE: 'nix' });
  assert.equal((await run.ended).code, 3);
  assert.equal(run.wrote, 'action main\nINPUT_STORE=nix\n');
  assert.equal(run.said, 'said\n');
});

test('the post part runs the program that the main part has found', async (t) => {
  const directory = place(t);
  const state = path.join(directory, 'state');
  const found = program(directory, 'echo "$@"');
  const main = start(MAIN, { INPUT_BINARY: found, GITHUB_STATE: state });
  assert.equal((await main.ended).code, 0);
  const [name, value, end] = fs.readFileSync(state, 'utf8').split('\n');
  assert.equal(name, `binary<<${end}`);
  const post = start(POST, { STATE_binary: value });
  assert.equal((await post.ended).code, 0);
  assert.equal(post.wrote, 'action post\n');
});

test('if the main part found no program, the post part does nothing', async () => {
  const post = start(POST, { INPUT_BINARY: '/no/such/program' });
  assert.equal((await post.ended).code, 0);
  assert.equal(post.said, '');
});

test('a signal is forwarded, and closes the input of the program', async (t) => {
  for (const signal of ['SIGINT', 'SIGTERM']) {
    const directory = place(t);
    // The script needs both to print its last line: the signal, and the end of its input.
    const script =
      'trap "echo trapped" INT TERM; echo ready; while read line; do :; done; ' +
      'echo closed; exit 1';
    const run = start(MAIN, { INPUT_BINARY: program(directory, script) });
    await until('the program', () => run.wrote.includes('ready'));
    run.child.kill(signal);
    assert.equal((await run.ended).code, 1);
    assert.match(run.wrote, /trapped/);
    assert.match(run.wrote, /closed/);
    assert.equal(run.said, '', 'a canceled step prints no message');
  }
});

test('when the shim is killed, the input of the program closes', async (t) => {
  const directory = place(t);
  const gone = path.join(directory, 'gone');
  const script = `echo ready; while read line; do :; done; echo > '${gone}'`;
  const run = start(MAIN, { INPUT_BINARY: program(directory, script) });
  await until('the program', () => run.wrote.includes('ready'));
  run.child.kill('SIGKILL');
  await until('the program to notice', () => fs.existsSync(gone));
});

test('a program that does not exit in time is left behind', async (t) => {
  const directory = place(t);
  const stuck = program(directory, 'trap "" INT TERM; echo $$ > "$0.pid"; echo ready; exec sleep 60');
  const shim = path.join(path.dirname(MAIN), 'shim.js');
  const code = `const { supervise } = require(${JSON.stringify(shim)});
    supervise(${JSON.stringify(stuck)}, [], { undoTimeout: 50 }).then(({ code, cancelled }) =>
      process.exit(cancelled ? code : 9));`;
  const child = spawn(process.execPath, ['-e', code]);
  let said = '';
  child.stderr.on('data', (data) => (said += data));
  await once(child.stdout, 'data');
  const pid = Number(fs.readFileSync(`${stuck}.pid`, 'utf8'));
  t.after(() => process.kill(pid, 'SIGKILL'));
  child.kill('SIGINT');
  const [status] = await once(child, 'exit');
  assert.equal(status, 1);
  assert.match(said, /^::warning .*still being undone/);
});

test('a program that crashes is a miss, unless a miss fails the step', async (t) => {
  const directory = place(t);
  for (const [script, why] of [
    ['kill -SEGV $$', 'SIGSEGV'],
    ['exit 101', 'exit code 101'],
  ]) {
    const env = { INPUT_BINARY: program(directory, script) };
    const run = start(MAIN, env);
    assert.equal((await run.ended).code, 0);
    assert.match(run.said, new RegExp(`^::warning title=storecache::.*${why}\n$`));
    const strict = start(MAIN, { ...env, 'INPUT_FAIL-ON-CACHE-MISS': 'true' });
    assert.equal((await strict.ended).code, 1);
    assert.match(strict.said, /^::error /);
    const state = { STATE_binary: env.INPUT_BINARY };
    const post = start(POST, { ...env, ...state, 'INPUT_FAIL-ON-CACHE-MISS': 'true' });
    assert.equal((await post.ended).code, 0);
    assert.match(post.said, /^::warning /);
  }
});

test('a file that is not a program fails the step', async (t) => {
  const directory = place(t);
  const text = path.join(directory, 'text');
  fs.writeFileSync(text, 'no program');
  for (const named of [text, directory, path.join(directory, '100%')]) {
    const run = start(MAIN, { INPUT_BINARY: named });
    assert.equal((await run.ended).code, 1);
    assert.match(run.said, /^::error title=storecache::input binary: .* is not an executable file\n$/);
    assert.equal(run.said.includes('100%25'), named.endsWith('%'));
  }
  const broken = path.join(directory, 'broken');
  fs.writeFileSync(broken, '#!/no/such/shell\n', { mode: 0o755 });
  const run = start(MAIN, { INPUT_BINARY: broken });
  assert.equal((await run.ended).code, 1);
  assert.match(run.said, /^::error title=storecache::cannot run /);
});
