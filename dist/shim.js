// What the runner of a job executes: finds the storecache program for this machine and runs it, with
// a pipe on its standard input whose end calls it off. Node's own modules only; node 20 or newer.
'use strict';
const { spawn } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const { find } = require('./find');

// The runner sends SIGINT, and SIGTERM 7.5 seconds later.
// Source: actions/runner src/Runner.Sdk/ProcessInvoker.cs.
const PATIENCE = 7000;

/** An input as the runner hands it over; empty when nobody has set it. */
function input(name, env = process.env) {
  return (env[`INPUT_${name.toUpperCase()}`] || '').trim();
}

/** One annotation of the step. */
function annotate(kind, text) {
  const data = text.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
  process.stderr.write(`::${kind} title=storecache::${data}\n`);
}

/** Leaves a value to the post part of this step. */
function saveState(name, value, env = process.env) {
  if (!env.GITHUB_STATE) return;
  const end = `ghadelimiter_${crypto.randomUUID()}`;
  fs.appendFileSync(env.GITHUB_STATE, `${name}<<${end}\n${value}\n${end}\n`);
}

/**
 * Runs a program to its end and resolves to how that was: `code`, or `signal`, or `error` when it
 * could not begin, and whether it was `cancelled`. SIGINT, SIGTERM and SIGHUP are handed on and close
 * its standard input, which also closes when this process dies. It may undo what it began until the
 * patience is over; after that it goes on alone.
 */
function supervise(program, args, { patience = PATIENCE, ...options } = {}) {
  return new Promise((resolve) => {
    let child;
    let cancelled = false;
    const cancel = (signal) => {
      child.kill(signal);
      child.stdin.destroy();
      if (cancelled) return;
      cancelled = true;
      setTimeout(() => {
        annotate('warning', 'cancelled; what was begun is still being undone');
        resolve({ code: 1, cancelled });
      }, patience).unref();
    };
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
    // Before it can be noticed that the program runs.
    for (const signal of signals) process.on(signal, cancel);
    child = spawn(program, args, { ...options, stdio: ['pipe', 'inherit', 'inherit'] });
    // It may have ended, or never read.
    child.stdin.on('error', () => {});
    const end = (how) => {
      for (const signal of signals) process.off(signal, cancel);
      resolve({ ...how, cancelled });
    };
    child.on('error', (error) => end({ error }));
    child.on('exit', (code, signal) => end(signal ? { signal } : { code }));
  });
}

/** The main or the post part of the step, and the exit code for it. */
async function step(part) {
  // Without a program, or when it breaks, the cache is a miss and the job goes on.
  const fails = part === 'main' && /^true$/i.test(input('fail-on-cache-miss'));
  const goOn = (text, fatal = false) => {
    annotate(fatal || fails ? 'error' : 'warning', text);
    return fatal || fails ? 1 : 0;
  };
  let program;
  try {
    const before = process.env.STATE_binary;
    // The main part has found none and said so.
    if (part === 'post' && !before) return 0;
    program = part === 'post' && fs.existsSync(before) ? before : await find({ input, supervise });
    if (part === 'main') saveState('binary', program);
  } catch (error) {
    return goOn(error.message, error.fatal);
  }
  const { code, signal, error, cancelled } = await supervise(program, ['action', part]);
  if (cancelled) return code || 1;
  if (error) return goOn(`cannot run ${program}: ${error.message}`, input('binary') !== '');
  if (signal) return goOn(`${program} was ended by ${signal}`);
  // Done, cancelled, wrong inputs, miss: see Ending in src/commands/mod.rs.
  return code <= 3 ? code : goOn(`${program} broke off with exit code ${code}`);
}

async function run(part) {
  process.exit(await step(part));
}

module.exports = { annotate, input, run, saveState, supervise };
