// Tests of a release, from the tag to a step that runs the released program: runs scripts/release in a scratch
// repository with its own remote, and then the shim of the commits that the tags point to.
'use strict';
const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { find } = require('../../dist/find');
const { input } = require('../../dist/shim');

const ROOT = path.resolve(__dirname, '../..');
const TARGETS = ['x86_64-unknown-linux-gnu', 'aarch64-unknown-linux-gnu'];

/** A project at a version that is tagged in its remote, and the programs that were built from it. */
class Project {
  constructor(t, version) {
    this.top = fs.mkdtempSync(path.join(os.tmpdir(), 'storecache-release-'));
    t.after(() => fs.rmSync(this.top, { recursive: true, force: true }));
    this.tree = path.join(this.top, 'tree');
    this.files = path.join(this.top, 'files');
    this.remote = path.join(this.top, 'remote.git');
    fs.mkdirSync(path.join(this.tree, 'scripts'), { recursive: true });
    fs.mkdirSync(path.join(this.tree, 'dist'));
    fs.copyFileSync(path.join(ROOT, 'scripts/release'), path.join(this.tree, 'scripts/release'));
    this.git('init', '-q', '--bare', this.remote);
    this.git('init', '-q', '-b', 'main', '.');
    this.git('remote', 'add', 'origin', this.remote);
    this.version(version);
  }

  env = {
    ...process.env,
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_AUTHOR_NAME: 'm',
    GIT_AUTHOR_EMAIL: 'm@m',
    GIT_COMMITTER_NAME: 'm',
    GIT_COMMITTER_EMAIL: 'm@m',
  };

  run(program, args, more = {}) {
    return spawnSync(program, args, { cwd: this.tree, env: this.env, encoding: 'utf8', ...more });
  }

  git(...args) {
    const { status, stdout, stderr } = this.run('git', args);
    assert.equal(status, 0, `git ${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  }

  write(name, text) {
    fs.writeFileSync(path.join(this.tree, name), text);
  }

  read(name, ref) {
    return this.git('show', `${ref}:${name}`);
  }

  /** Sets the version in all files, and pushes its tag. */
  version(version, { sha256 = {} } = {}) {
    if (this.at('main')) {
      this.git('fetch', '-q', '--depth', '1', 'origin', 'main');
      this.git('checkout', '-q', '-B', 'main', 'FETCH_HEAD');
    }
    this.write('Cargo.toml', `[package]\nname = "storecache"\nversion = "${version}"\n\n[dependencies.x]\nversion = "9"\n`);
    this.write('dist/version.json', JSON.stringify({ version, sha256 }));
    this.write('CHANGELOG.md', `# Changes\n\n## ${version} (today)\n\n- All of ${version}.\n\n## 0.0.1\n\n- Old.\n`);
    this.git('add', '-A');
    this.git('commit', '-q', '-m', version);
    this.git('tag', '-a', '-m', 'signed, say', `v${version}`);
    this.git('push', '-q', 'origin', 'main', `v${version}`);
    fs.mkdirSync(this.files, { recursive: true });
    for (const target of TARGETS) {
      fs.writeFileSync(path.join(this.files, `storecache-${target}`), `#!/bin/sh\necho ${version}\n`);
    }
  }

  /** Clones the tag, as a runner does. */
  job(tag) {
    fs.rmSync(this.tree, { recursive: true });
    spawnSync('git', ['clone', '-q', '--depth', '1', '--branch', tag, `file://${this.remote}`, this.tree]);
  }

  release(step, tag, ...more) {
    return this.run(path.join(this.tree, 'scripts/release'), [step, tag, ...more]);
  }

  done(step, tag, ...more) {
    const { status, stdout, stderr } = this.release(step, tag, ...more);
    assert.equal(status, 0, `${step}: ${stderr}`);
    return stdout;
  }

  refused(step, tag, why, ...more) {
    const { status, stderr } = this.release(step, tag, ...more);
    assert.equal(status, 1, stderr);
    assert.match(stderr, why);
  }

  /** The commit that a tag or branch of the remote leads to; empty when there is none. */
  at(ref) {
    const { stdout } = this.run('git', ['--git-dir', this.remote, 'rev-parse', '--verify', '-q', `${ref}^{commit}`]);
    return stdout.trim();
  }

  /** Runs all steps of a release except `publish`. */
  complete(tag) {
    this.job(tag);
    this.done('check', tag);
    this.done('checksums', tag, this.files);
    this.done('record', tag);
    return this.done('major', tag);
  }
}

test('a step that uses the tag of a release runs the released program', async (t) => {
  const project = new Project(t, '1.2.3');
  const tagged = project.at('v1.2.3');
  project.complete('v1.2.3');
  const released = project.at('v1.2.3');
  assert.notEqual(released, tagged);
  assert.equal(project.at('v1'), released);
  assert.equal(project.at('main'), tagged, 'the branch has not changed');
  assert.equal(project.at(`${released}^`), tagged);
  const changed = project.git('--git-dir', project.remote, 'diff', '--name-only', tagged, released);
  assert.equal(changed, 'dist/version.json');

  // A job that uses v1 gets the shim of that commit, and the release page with the programs.
  project.job('v1');
  const page = Object.fromEntries(
    TARGETS.map((target) => {
      const name = `storecache-${target}`;
      return [`/me/it/releases/download/v1.2.3/${name}`, fs.readFileSync(path.join(project.files, name))];
    }),
  );
  const server = http.createServer((request, response) => {
    if (page[request.url]) response.end(page[request.url]);
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  t.after(() => server.closeAllConnections());
  for (const arch of ['x64', 'arm64']) {
    const program = await find({
      input,
      supervise: () => assert.fail('must not build anything'),
      root: project.tree,
      platform: 'linux',
      arch,
      env: {
        GITHUB_ACTION_REPOSITORY: 'me/it',
        GITHUB_SERVER_URL: `http://127.0.0.1:${server.address().port}`,
        RUNNER_TOOL_CACHE: path.join(project.top, 'tools', arch),
      },
    });
    assert.equal(fs.readFileSync(program, 'utf8'), '#!/bin/sh\necho 1.2.3\n');
  }
  const sums = fs.readFileSync(path.join(project.files, 'SHA256SUMS'), 'utf8');
  assert.equal(sums.split('\n').length, 3, sums);
  const checked = spawnSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: project.files });
  assert.equal(checked.status, 0);
});

test('an interrupted release can be repeated, with the same result', (t) => {
  const project = new Project(t, '1.2.3');
  const event = project.at('v1.2.3');
  project.complete('v1.2.3');
  const released = project.at('v1.2.3');
  // If a job is run again, the runner checks out the commit of its event.
  project.git('fetch', '-q', 'origin', event);
  project.git('checkout', '-q', event);
  project.done('checksums', 'v1.2.3', project.files);
  assert.match(project.done('record', 'v1.2.3'), /already/);
  assert.match(project.done('major', 'v1.2.3'), /already/);
  assert.equal(project.at('v1.2.3'), released);
  assert.equal(project.at('v1'), released);
});

test('digests that were written before tagging are enforced, and the tag does not move', (t) => {
  const project = new Project(t, '1.2.3');
  const digest = (text) => crypto.createHash('sha256').update(text).digest('hex');
  const program = '#!/bin/sh\necho 1.2.4\n';
  project.version('1.2.4', { sha256: Object.fromEntries(TARGETS.map((it) => [it, digest(program)])) });
  const tagged = project.at('v1.2.4');
  project.job('v1.2.4');
  project.done('checksums', 'v1.2.4', project.files);
  // The file may be formatted otherwise; its content is the same.
  project.git('checkout', '-q', 'dist/version.json');
  project.done('record', 'v1.2.4');
  assert.equal(project.at('v1.2.4'), tagged);

  fs.writeFileSync(path.join(project.files, `storecache-${TARGETS[1]}`), 'other bytes');
  project.refused('checksums', 'v1.2.4', /has .* for aarch64-unknown-linux-gnu, and the build/, project.files);
});

test('the major tag only moves forward, and never to a pre-release', (t) => {
  const project = new Project(t, '1.9.0');
  project.complete('v1.9.0');
  project.version('1.10.0');
  project.complete('v1.10.0');
  const newest = project.at('v1.10.0');
  assert.equal(project.at('v1'), newest);
  project.version('1.9.1');
  assert.match(project.complete('v1.9.1'), /v1 does not move: v1\.10\.0 is newer/);
  project.version('1.11.0-rc.1');
  assert.match(project.complete('v1.11.0-rc.1'), /v1 does not move/);
  assert.equal(project.at('v1'), newest);
  project.version('1.10.1');
  project.complete('v1.10.1');
  assert.equal(project.at('v1'), project.at('v1.10.1'), 'a pre-release does not count as newer');
  project.version('2.0.0-rc.1');
  assert.match(project.complete('v2.0.0-rc.1'), /v2 does not move/);
  assert.equal(project.at('v2'), '', 'not even if there is no other version');
  project.version('2.0.0');
  project.complete('v2.0.0');
  assert.equal(project.at('v2'), project.at('v2.0.0'));
  assert.equal(project.at('v1'), project.at('v1.10.1'));
});

test('a tag that contradicts the files is refused', (t) => {
  const project = new Project(t, '1.2.3');
  const unchanged = project.at('v1.2.3');
  project.refused('check', 'v1.2.4', /Cargo.toml has 1\.2\.3/);
  for (const tag of ['1.2.3', 'v1', 'v1.2', 'v01.2.3', 'v1.2.3 ', 'v1.2.3;x', 'main']) {
    project.refused('check', tag, /is not the tag of a version/);
  }
  project.write('dist/version.json', '{"version": "1.2.2", "sha256": {}}');
  project.refused('check', 'v1.2.3', /dist\/version.json has 1\.2\.2/);
  project.git('checkout', '-q', '.');
  project.write('CHANGELOG.md', '# Changes\n\n## Unreleased\n\n- Much.\n\n## 1.2.30\n\n- Not that.\n');
  project.refused('check', 'v1.2.3', /nothing below "## 1\.2\.3"/);
  project.git('checkout', '-q', '.');
  project.done('check', 'v1.2.3');

  fs.writeFileSync(path.join(project.files, `storecache-${TARGETS[1]}`), '');
  project.refused('checksums', 'v1.2.3', /has no storecache-aarch64/, project.files);
  project.write('dist/version.json', '{"version": "1.2.3", "sha256": {"x86_64-unknown-linux-gnu": "a"}}');
  // Another process has moved the tag during the build.
  project.git('commit', '-q', '--allow-empty', '-m', 'other');
  project.git('push', '-q', '--force', 'origin', 'HEAD:refs/tags/v1.2.3');
  const moved = project.at('v1.2.3');
  project.git('reset', '-q', '--soft', unchanged);
  project.refused('record', 'v1.2.3', /was moved in the meantime/);
  assert.equal(project.at('v1.2.3'), moved);
  assert.equal(project.at('v1'), '');
});

test('the release page gets the programs, their digests and the changes, once', (t) => {
  const project = new Project(t, '1.3.0');
  project.job('v1.3.0');
  project.done('checksums', 'v1.3.0', project.files);
  // A replacement for GitHub's program. It records its arguments, and the page exists from then on.
  const bin = path.join(project.top, 'bin');
  fs.mkdirSync(bin);
  const gh = `#!/bin/sh
case "$2" in
view) test -e "${project.top}/page" ;;
create) printf '%s\\n' "$@" >"${project.top}/page"; cat >"${project.top}/notes" ;;
esac
`;
  fs.writeFileSync(path.join(bin, 'gh'), gh, { mode: 0o755 });
  project.env.PATH = `${bin}:${project.env.PATH}`;
  project.done('publish', 'v1.3.0', project.files);
  const words = fs.readFileSync(path.join(project.top, 'page'), 'utf8').trim().split('\n');
  assert.deepEqual(words.slice(0, 4), ['release', 'create', 'v1.3.0', '--verify-tag']);
  const assets = words.filter((word) => word.startsWith(project.files)).map((it) => path.basename(it));
  assert.deepEqual(assets.sort(), ['SHA256SUMS', ...TARGETS.map((it) => `storecache-${it}`)].sort());
  assert.ok(!words.includes('--prerelease'));
  assert.equal(fs.readFileSync(path.join(project.top, 'notes'), 'utf8').trim(), '- All of 1.3.0.');
  fs.truncateSync(path.join(project.top, 'page'));
  assert.match(project.done('publish', 'v1.3.0', project.files), /already published/);
  assert.equal(fs.statSync(path.join(project.top, 'page')).size, 0);

  fs.rmSync(path.join(project.top, 'page'));
  project.version('1.4.0-rc.1');
  project.done('publish', 'v1.4.0-rc.1', project.files);
  assert.ok(fs.readFileSync(path.join(project.top, 'page'), 'utf8').includes('\n--prerelease\n'));
});
