// The entry point of the action, which the runner of a job executes. Finds the storecache program for this machine
// and runs it with a pipe as its standard input; closing the pipe cancels the program. Uses only modules of Node
// itself, of version 20 or newer.
'use strict';
const { spawn } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const { find } = require('./find');

// Time for a canceled program to undo its changes, in milliseconds. The runner sends SIGINT, and SIGTERM 7.5 seconds
// later. Source: actions/runner src/Runner.Sdk/ProcessInvoker.cs.
const UNDO_TIMEOUT = 7000;

/** Returns an input of the step, or an empty string if it is not set. */
function input(name, env = process.env) {
  return (env[`INPUT_${name.toUpperCase()}`] || '').trim();
}

/** Writes an annotation of the step. */
function annotate(kind, text) {
  const data = text.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
  process.stderr.write(`::${kind} title=storecache::${data}\n`);
}

/** Saves a value for the post part of this step. */
function saveState(name, value, env = process.env) {
  if (!env.GITHUB_STATE) return;
  const end = `ghadelimiter_${crypto.randomUUID()}`;
  fs.appendFileSync(env.GITHUB_STATE, `${name}<<${end}\n${value}\n${end}\n`);
}

/**
 * Runs a program until it exits. Resolves to its `code`, its `signal`, or an `error` if it could not start, and to
 * whether it was `cancelled`. SIGINT, SIGTERM and SIGHUP are forwarded to the program and close its standard input,
 * which also closes when this process dies. Then the program has `undoTimeout` milliseconds to undo its changes.
 * After that, the result does not wait for the program, which keeps running.
 */
function supervise(program, args, { undoTimeout = UNDO_TIMEOUT, ...options } = {}) {
  return new Promise((resolve) => {
    let child;
    let cancelled = false;
    const cancel = (signal) => {
      child.kill(signal);
      child.stdin.destroy();
      if (cancelled) return;
      cancelled = true;
      setTimeout(() => {
        annotate('warning', 'canceled; changes are still being undone');
        resolve({ code: 1, cancelled });
      }, undoTimeout).unref();
    };
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
    // Install the handlers first, because a signal may arrive as soon as the program runs.
    for (const signal of signals) process.on(signal, cancel);
    child = spawn(program, args, { ...options, stdio: ['pipe', 'inherit', 'inherit'] });
    // The program may have exited, or may never read.
    child.stdin.on('error', () => {});
    const end = (result) => {
      for (const signal of signals) process.off(signal, cancel);
      resolve({ ...result, cancelled });
    };
    child.on('error', (error) => end({ error }));
    child.on('exit', (code, signal) => end(signal ? { signal } : { code }));
  });
}

/** Runs the main or the post part of the step. Returns its exit code. */
async function step(part) {
  // If there is no program, or if it crashes, the result is a cache miss and the job continues.
  const fails = part === 'main' && /^true$/i.test(input('fail-on-cache-miss'));
  const goOn = (text, fatal = false) => {
    annotate(fatal || fails ? 'error' : 'warning', text);
    return fatal || fails ? 1 : 0;
  };
  let program;
  try {
    const before = process.env.STATE_binary;
    // The main part found no program, and has reported that.
    if (part === 'post' && !before) return 0;
    program = part === 'post' && fs.existsSync(before) ? before : await find({ input, supervise });
    if (part === 'main') saveState('binary', program);
  } catch (error) {
    return goOn(error.message, error.fatal);
  }
  const { code, signal, error, cancelled } = await supervise(program, ['action', part]);
  if (cancelled) return code || 1;
  if (error) return goOn(`cannot run ${program}: ${error.message}`, input('binary') !== '');
  if (signal) return goOn(`${program} was killed by ${signal}`);
  // Success, cancellation, invalid inputs or a miss; see `Ending` in src/commands/mod.rs.
  return code <= 3 ? code : goOn(`${program} failed with exit code ${code}`);
}

async function run(part) {
  process.exit(await step(part));
}

module.exports = { annotate, input, run, saveState, supervise };
