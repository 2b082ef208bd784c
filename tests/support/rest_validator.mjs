// Checks requests to GitHub's REST API, and the responses, against GitHub's own description of the API.
//   node rest_validator.mjs PEERS
// Reads one JSON object per line: method, path, query, status, body (null if empty). Prints one line for each: the
// problem, or nothing. For an object with `example`, prints that example from the description.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const rest = `${process.argv[2]}/rest/`
const require = createRequire(rest)
const Ajv = require('ajv').default
const formats = require('ajv-formats')
const api = JSON.parse(readFileSync(`${rest}node_modules/@octokit/openapi/generated/api.github.com.json`))
// Parameters are strings, whatever their type is.
const [ofParameters, ofBodies] = [true, false].map((coerceTypes) =>
    formats(new Ajv({ strict: false, validateSchema: false, coerceTypes })))

const follow = (node) => node.$ref
    ? node.$ref.slice(2).split('/').reduce((at, name) => at[name], api)
    : node

/** Returns a schema without references. Every property is optional, because GitHub's own examples omit some. */
function loose(node) {
    if (Array.isArray(node)) return node.map(loose)
    if (node === null || typeof node !== 'object') return node
    const { required, ...rest } = follow(node)
    const all = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, loose(value)]))
    return Array.isArray(required) || !required ? all : { ...all, required: loose(required) }
}

/** Returns a schema without references. Every property is required, because GitHub sends all of them. */
function whole(node) {
    if (Array.isArray(node)) return node.map(whole)
    if (node === null || typeof node !== 'object') return node
    const all = Object.fromEntries(Object.entries(follow(node)).map(([name, value]) => [name, whole(value)]))
    return all.properties ? { ...all, required: Object.keys(all.properties) } : all
}

function check(ajv, schema, value, what) {
    const problem = ajv.validate(schema, value) ? '' : ajv.errorsText()
    return problem && `${what}: ${problem}`
}

/** Returns the template of a path, and the values of its parameters. */
function template(path) {
    const words = path.split('/')
    const fits = Object.keys(api.paths).map((name) => name.split('/')).filter((parts) =>
        parts.length === words.length && parts.every((part, at) => part.startsWith('{') || part === words[at]))
    fits.sort((a, b) => a.filter((part) => part.startsWith('{')).length - b.filter((part) => part.startsWith('{')).length)
    const holes = (fits[0] ?? []).map((part, at) => [part, words[at]]).filter(([part]) => part.startsWith('{'))
    return [fits[0]?.join('/'), Object.fromEntries(holes.map(([part, word]) => [part.slice(1, -1), word]))]
}

function judge({ method, path, query, status, body }) {
    const [name, holes] = template(path)
    const operation = api.paths[name]?.[method.toLowerCase()]
    if (!operation) return `there is no ${method} ${path}`
    const parameters = (operation.parameters ?? []).map(follow)
    for (const [where, given] of [['path', holes], ['query', query]]) {
        const known = parameters.filter((parameter) => parameter.in === where)
        const schema = {
            type: 'object',
            properties: Object.fromEntries(known.map((parameter) => [parameter.name, whole(parameter.schema)])),
            required: known.filter((parameter) => parameter.required).map((parameter) => parameter.name),
            additionalProperties: false,
        }
        const problem = check(ofParameters, schema, { ...given }, `${where} of ${method} ${path}`)
        if (problem) return problem
    }
    if (query.per_page > 100) return 'GitHub gives at most 100 in a page'
    const what = `${status} to ${method} ${path}`
    // The description has the format of errors, but not the possible errors of a request.
    if (status >= 300) return check(ofBodies, api.components.schemas['basic-error'], body, what)
    const response = operation.responses[status]
    if (!response) return `${what}: not described`
    const schema = follow(response).content?.['application/json']?.schema
    if (!schema) return body === null ? '' : `${what}: has a body`
    // Responses that are not about entries are GitHub's examples, see below.
    const fit = name.includes('/actions/') ? whole : loose
    return check(ofBodies, fit(schema), body, what)
}

for await (const line of createInterface({ input: process.stdin })) {
    const { example, ...exchange } = JSON.parse(line)
    const answer = example ? JSON.stringify(api.components.examples[example].value) : judge(exchange)
    console.log(answer.replaceAll('\n', ' '))
}
