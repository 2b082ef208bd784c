// Finds the storecache program. In this order: the program that the user names, a program in this directory, the
// download of an earlier job, the asset of this version's release, and a build of the checkout of this action.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const TARGETS = { x64: 'x86_64-unknown-linux-gnu', arm64: 'aarch64-unknown-linux-gnu' };
const ROOT = path.dirname(__dirname);
/** Abort a download after so many milliseconds without data. */
const STALL = 20_000;

/** An error that fails the step. After other errors, the job continues without a cache. */
class Fatal extends Error {
  fatal = true;
}

/**
 * Returns the path of the program. `root` is the checkout of this action. Tests replace the other parameters, which
 * are properties of this process and its machine, and the function that runs cargo.
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
    if (!isProgram(program)) throw new Fatal(`input binary: ${program} is not an executable file`);
    return program;
  }
  const target = TARGETS[arch];
  if (platform !== 'linux' || !target) {
    throw new Error(`storecache runs on Linux on x86_64 and aarch64, not on ${platform} ${arch}`);
  }
  const bundled = path.join(root, 'dist', `storecache-${target.split('-')[0]}`);
  if (isProgram(bundled)) return bundled;

  const reasons = [];
  // The variable is empty for `uses: ./`, which asks for the checkout itself and not for a release.
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
  throw new Error(`found no storecache program for this machine${why}; set the input binary to the path of one`);
}

/** Returns the program of this version's release. Downloads it if the tool cache does not have it. */
async function released(target, root, env, input) {
  const { version, sha256 } = JSON.parse(fs.readFileSync(path.join(root, 'dist', 'version.json')));
  const expected = sha256[target];
  if (!expected) throw new Error(`version ${version} has no release for ${target}`);
  const directory = path.join(env.RUNNER_TOOL_CACHE || env.RUNNER_TEMP || root, 'storecache', version, target);
  const program = path.join(directory, 'storecache');
  if (isProgram(program) && digest(fs.readFileSync(program)) === expected) return program;

  const repository = env.GITHUB_ACTION_REPOSITORY;
  const server = env.GITHUB_SERVER_URL || 'https://github.com';
  const url = `${server}/${repository}/releases/download/v${version}/storecache-${target}`;
  const bytes = await download(url);
  const found = digest(bytes);
  if (found !== expected) {
    throw new Error(`${url} has a wrong SHA-256: ${found} instead of ${expected}`);
  }
  await attested(found, repository, input('token', env) || env.GITHUB_TOKEN, env);
  // Rename the file into place, so that another job of this machine never sees an incomplete program.
  fs.mkdirSync(directory, { recursive: true });
  const fresh = `${program}.${crypto.randomUUID()}`;
  fs.writeFileSync(fresh, bytes, { mode: 0o755 });
  fs.renameSync(fresh, program);
  return program;
}

async function download(url) {
  const stalled = new AbortController();
  let timer;
  const progress = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stalled.abort(new Error(`no data for ${STALL / 1000} s`)), STALL);
  };
  try {
    progress();
    const response = await fetch(url, { signal: stalled.signal });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const parts = [];
    for await (const part of response.body) {
      progress();
      parts.push(part);
    }
    return Buffer.concat(parts);
  } catch (error) {
    throw new Error(`cannot download ${url}: ${error.cause?.message || error.message}`);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Asks GitHub for an attestation of the program with this digest, if there is a token. Fails if GitHub replies that
 * there is no attestation. If GitHub does not reply, the program is accepted, because its checksum is correct.
 */
async function attested(sha256, repository, token, env) {
  // A GitHub Enterprise Server has mirrored releases, but not their attestations.
  if (!token || !env.GITHUB_API_URL || env.GITHUB_API_URL.endsWith('/api/v3')) return;
  const url = `${env.GITHUB_API_URL}/repos/${repository}/attestations/sha256:${sha256}`;
  let known;
  try {
    const headers = { Accept: 'application/vnd.github+json', Authorization: `Bearer ${token}` };
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(STALL) });
    if (response.status !== 404 && !response.ok) return;
    known = response.ok && (await response.json()).attestations?.length > 0;
  } catch {
    return;
  }
  if (!known) throw new Error(`${repository} has not attested the build of a program with SHA-256 ${sha256}`);
}

/** Builds the program from the checkout. Returns its path. */
async function built(root, env, supervise) {
  const target = path.join(root, 'target');
  const args = ['build', '--release', '--locked', '--target-dir', target];
  // A build runs code of the dependencies, so it must not get the signing key.
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
