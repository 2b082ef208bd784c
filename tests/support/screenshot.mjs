// Draws the element `.picture` of a page in a headless Chromium without scripts, 700 pixels wide.
//   node screenshot.mjs PEERS SCREENSHOT PAGE
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [peers, screenshot, path] = process.argv.slice(2)
const { chromium } = createRequire(`${peers}/browser/`)('playwright-core')

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--headless', '--no-sandbox', '--disable-gpu'] })
const page = await browser.newPage({ javaScriptEnabled: false, colorScheme: 'light', viewport: { width: 700, height: 900 } })
await page.goto(pathToFileURL(path).href)
await page.locator('.picture').screenshot({ path: screenshot })
await browser.close()
