// Finding the program: the one that the user names, one beside this file, one that an earlier job has
// downloaded, the asset of this version's release, or the checkout that this file is part of.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const TARGETS = { x64: 'x86_64-unknown-linux-gnu', arm64: 'aarch64-unknown-linux-gnu' };
const ROOT = path.dirname(__dirname);
/** A download that does not get anywhere for so long is given up; in milliseconds. */
const STALL = 20_000;

/** The step fails, instead of going on without a cache. */
class Fatal extends Error {
  fatal = true;
}

/**
 * The path of a program to run. `root` is the checkout of this action; the rest stands for the
 * process, the network and cargo.
 */
async function find({
  input,
  supervise,
  env = process.env,
  platform = process.platform,
  arch = process.arch,
  root = ROOT,
}) {
  const named = input('binary', env);
  if (named) {
    const program = path.resolve(named);
    if (!isProgram(program)) throw new Fatal(`input binary: ${program} is no program`);
    return program;
  }
  const target = TARGETS[arch];
  if (platform !== 'linux' || !target) {
    throw new Error(`storecache runs on Linux, on x86_64 and aarch64, and not on ${platform} ${arch}`);
  }
  const bundled = path.join(root, 'dist', `storecache-${target.split('-')[0]}`);
  if (isProgram(bundled)) return bundled;

  const reasons = [];
  // Empty for `uses: ./`: then the checkout is what is meant, not a release of it.
  if (env.GITHUB_ACTION_REPOSITORY) {
    try {
      return await released(target, root, env, input);
    } catch (error) {
      reasons.push(error.message);
    }
  }
  if (fs.existsSync(path.join(root, 'Cargo.toml'))) {
    try {
      return await built(root, env, supervise);
    } catch (error) {
      reasons.push(error.message);
    }
  }
  const why = reasons.length ? `: ${reasons.join('; ')}` : '';
  throw new Error(`there is no storecache program for this machine${why}; name one with the input binary`);
}

/** The program of this version's release, from the tool cache or the release page. */
async function released(target, root, env, input) {
  const { version, sha256 } = JSON.parse(fs.readFileSync(path.join(root, 'dist', 'version.json')));
  const expected = sha256[target];
  if (!expected) throw new Error(`version ${version} has no release for ${target}`);
  const place = path.join(env.RUNNER_TOOL_CACHE || env.RUNNER_TEMP || root, 'storecache', version, target);
  const program = path.join(place, 'storecache');
  if (isProgram(program) && digest(fs.readFileSync(program)) === expected) return program;

  const repository = env.GITHUB_ACTION_REPOSITORY;
  const server = env.GITHUB_SERVER_URL || 'https://github.com';
  const url = `${server}/${repository}/releases/download/v${version}/storecache-${target}`;
  const bytes = await download(url);
  const found = digest(bytes);
  if (found !== expected) {
    throw new Error(`${url} is not what was released: its SHA-256 is ${found}, not ${expected}`);
  }
  await attested(found, repository, input('token', env) || env.GITHUB_TOKEN, env);
  // Renamed into place: another job of this machine sees it whole or not at all.
  fs.mkdirSync(place, { recursive: true });
  const fresh = `${program}.${crypto.randomUUID()}`;
  fs.writeFileSync(fresh, bytes, { mode: 0o755 });
  fs.renameSync(fresh, program);
  return program;
}

async function download(url) {
  const stalled = new AbortController();
  let clock;
  const progress = () => {
    clearTimeout(clock);
    clock = setTimeout(() => stalled.abort(new Error(`no byte for ${STALL / 1000} s`)), STALL);
  };
  try {
    progress();
    const answer = await fetch(url, { signal: stalled.signal });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const parts = [];
    for await (const part of answer.body) {
      progress();
      parts.push(part);
    }
    return Buffer.concat(parts);
  } catch (error) {
    throw new Error(`cannot download ${url}: ${error.cause?.message || error.message}`);
  } finally {
    clearTimeout(clock);
  }
}

/**
 * With a token GitHub is asked whether it knows where a program of this digest was built. "No" counts;
 * no answer does not, for the checksum has matched already.
 */
async function attested(sha256, repository, token, env) {
  // A GitHub Enterprise Server has the releases that it mirrors, but not their attestations.
  if (!token || !env.GITHUB_API_URL || env.GITHUB_API_URL.endsWith('/api/v3')) return;
  const url = `${env.GITHUB_API_URL}/repos/${repository}/attestations/sha256:${sha256}`;
  let known;
  try {
    const headers = { Accept: 'application/vnd.github+json', Authorization: `Bearer ${token}` };
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(STALL) });
    if (answer.status !== 404 && !answer.ok) return;
    known = answer.ok && (await answer.json()).attestations?.length > 0;
  } catch {
    return;
  }
  if (!known) throw new Error(`${repository} has not attested the build of the program with SHA-256 ${sha256}`);
}

/** Builds the checkout. */
async function built(root, env, supervise) {
  const target = path.join(root, 'target');
  const args = ['build', '--release', '--locked', '--target-dir', target];
  // What builds the dependencies runs their code: it gets no key to sign with.
  const { 'INPUT_SIGN-KEY': _key, STORECACHE_SIGN_KEY: _other, ...rest } = env;
  const { code } = await supervise('cargo', args, { cwd: root, env: rest });
  const program = path.join(target, 'release', 'storecache');
  if (code !== 0 || !isProgram(program)) throw new Error(`cargo could not build ${root}`);
  return program;
}

function isProgram(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

function digest(bytes) {
  return crypto.createHash('sha256').update(bytes).digest('hex');
}

module.exports = { find };
