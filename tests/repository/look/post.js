// Tells of each file that the runner could not remove from its own directories.
const { spawnSync } = require('node:child_process');
const { RUNNER_TEMP, GITHUB_WORKSPACE } = process.env;
const words = [RUNNER_TEMP, GITHUB_WORKSPACE, '!', '-user', `${process.getuid()}`];
const { status, stdout } = spawnSync('find', words, { encoding: 'utf8' });
console.log(`look: status ${status}, foreign files <${stdout.trim()}>`);
