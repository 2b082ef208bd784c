// Opens a page in a headless Chromium without scripts and without a network, in light and dark color schemes
// and in several widths, and reports problems.
//   node browser.mjs PEERS SCREENSHOTS PAGE
// Prints a JSON object: `problems`, a list of texts; `text`, all visible text; `shots`, the files of the
// screenshots; `least`, the lowest contrast of a text.
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [peers, shots, path] = process.argv.slice(2)
const { chromium } = createRequire(`${peers}/browser/`)('playwright-core')

// In the last view, scripts may run. This shows that the page has no scripts.
const VIEWS = [['light', 1200], ['dark', 1200], ['light', 390], ['dark', 390], ['light', 700, true]]

/** Finds problems for readers. Runs in the page. */
function judge(width) {
    const problems = []
    const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    const named = (element) => JSON.stringify(element.textContent.trim().slice(0, 40))
    const root = document.documentElement
    if (root.scrollWidth > width) {
        const wide = [...document.querySelectorAll('body *')].filter((it) => shown(it)
            && it.getBoundingClientRect().right > width + 1 && !it.closest('.scroll'))
        problems.push(`the page scrolls sideways: ${root.scrollWidth} of ${width}, ${wide.map((it) => it.tagName + '.' + it.className)}`)
    }
    if (document.querySelector('script, iframe, object, embed, img, link, form, base, a')) {
        problems.push('an element that does not belong here')
    }
    for (const element of document.querySelectorAll('*')) {
        for (const { name } of element.attributes) if (/^on|^href$|^src$|^style$/.test(name)) problems.push(`an attribute ${name}`)
    }

    // Colors.
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1)
        canvas.fillStyle = colour
        canvas.fillRect(0, 0, 1, 1)
        return [...canvas.getImageData(0, 0, 1, 1).data]
    }
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0)
    const contrast = (a, b) => {
        const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y)
        return (bright + 0.05) / (dark + 0.05)
    }
    const inside = (x, y, box) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom
    const rects = [...document.querySelectorAll('svg rect')].filter(shown)
    const behind = (element, x, y) => {
        // In an SVG, the last opaque rectangle at that point is visible.
        const svg = element.closest('svg')
        if (svg) {
            const here = rects.filter((rect) => svg.contains(rect) && inside(x, y, rect.getBoundingClientRect()))
                .map((rect) => rgba(getComputedStyle(rect).fill)).filter((fill) => fill[3] === 255)
            if (here.length) return here.at(-1)
        }
        for (let at = svg ?? element; at; at = at.parentElement) {
            const colour = rgba(getComputedStyle(at).backgroundColor)
            if (colour[3] === 255) return colour
        }
        return rgba(getComputedStyle(root).colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#fff')
    }
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    let least = Infinity
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement
        if (!walker.currentNode.data.trim() || ['STYLE', 'title'].includes(element.tagName) || !shown(element)) continue
        const range = document.createRange()
        range.selectNodeContents(walker.currentNode)
        const box = range.getBoundingClientRect()
        if (box.width === 0) continue
        const style = getComputedStyle(element)
        const front = rgba(element.closest('svg') ? style.fill : style.color)
        const ratio = contrast(front, behind(element, box.left + box.width / 2, box.top + box.height / 2))
        least = Math.min(least, ratio)
        if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)} of ${named(element)}`)
    }
    // The contrast of lines and marks with the card that they are on.
    for (const line of document.querySelectorAll('.plot path:not(.grid)')) {
        const style = getComputedStyle(line)
        const area = /^a\d/.test(line.getAttribute('class'))
        if (!shown(line) || area) continue
        const colour = rgba(style.stroke === 'none' ? style.fill : style.stroke)
        const ratio = contrast(colour, behind(line, -1, -1))
        if (ratio < 3) problems.push(`contrast ${ratio.toFixed(2)} of a line ${line.getAttribute('class')}`)
    }

    // Labels must be inside of their drawing and their tile, and must not overlap.
    for (const svg of [...document.querySelectorAll('svg.plot, svg.map')].filter(shown)) {
        const frame = svg.getBoundingClientRect()
        const texts = [...svg.querySelectorAll('text')].map((text) => [text, text.getBoundingClientRect()])
        for (const [text, box] of texts) {
            const out = (of) => box.left < of.left - 0.5 || box.right > of.right + 0.5 || box.top < of.top - 2 || box.bottom > of.bottom + 2
            if (out(frame)) problems.push(`${named(text)} leaves its drawing`)
            const tile = text.parentElement.querySelector(':scope > rect')
            if (svg.matches('.map') && out(tile.getBoundingClientRect())) problems.push(`${named(text)} leaves its tile`)
            const size = parseFloat(getComputedStyle(text).fontSize) * frame.width / svg.viewBox.baseVal.width
            if (size < 9) problems.push(`${named(text)} is ${size.toFixed(1)} pixels high`)
        }
        texts.forEach(([a, one], at) => texts.slice(at + 1).forEach(([b, other]) => {
            const across = Math.min(one.right, other.right) - Math.max(one.left, other.left)
            const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top)
            // The boxes of two lines of one label overlap a little.
            const allowed = a.parentElement === b.parentElement ? 4 : 1
            if (across > 0.5 && down > allowed) problems.push(`${named(a)} lies over ${named(b)}`)
        }))
        if (svg.matches('.map')) {
            const tiles = [...svg.querySelectorAll('rect')].map((rect) => rect.getBoundingClientRect())
            tiles.forEach((one, at) => tiles.slice(at + 1).forEach((other) => {
                const across = Math.min(one.right, other.right) - Math.max(one.left, other.left)
                const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top)
                if (across > 0.5 && down > 0.5) problems.push('two tiles lie over each other')
            }))
        }
        if (!svg.getAttribute('aria-label')) problems.push('a drawing without a name')
    }
    // A short text that is wrapped into many short lines.
    for (const cell of [...document.querySelectorAll('td, th, dd, dt, li')].filter(shown)) {
        if (cell.textContent.length < 40 && cell.clientHeight > 130) problems.push(`${named(cell)} is squeezed`)
    }
    const levels = [...document.querySelectorAll('h1, h2, h3')].map((it) => it.tagName)
    if (levels[0] !== 'H1' || levels.indexOf('H1', 1) > 0) problems.push(`headings ${levels}`)
    return { problems, text: document.body.innerText, least }
}

const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync']
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: flags })
const url = pathToFileURL(path).href
const answer = { problems: [], text: '', shots: [], least: null }
const pictures = {}
for (const [colorScheme, width, javaScriptEnabled = false] of VIEWS) {
    const view = `${colorScheme} ${width}`
    const complain = (problem) => answer.problems.push(`${view}: ${problem}`)
    const context = await browser.newContext({
        javaScriptEnabled, colorScheme, viewport: { width, height: 900 }, isMobile: width < 500,
        deviceScaleFactor: width < 500 ? 2 : 1,
    })
    const page = await context.newPage()
    page.on('request', (request) => request.url() === url || complain(`asks for ${request.url().slice(0, 100)}`))
    page.on('console', (message) => complain(`console: ${message.text()}`))
    page.on('pageerror', (error) => complain(`error: ${error}`))
    page.on('dialog', (dialog) => (complain(`dialog: ${dialog.message()}`), dialog.dismiss()))
    await page.goto(url)
    const seen = await page.evaluate(judge, width)
    seen.problems.forEach(complain)
    answer.text = seen.text
    answer.least = Math.min(answer.least ?? Infinity, seen.least)
    const shot = join(shots, `${basename(path, '.html')}-${colorScheme}-${width}.png`)
    pictures[view] = await page.screenshot({ fullPage: true, path: shot })
    // If the page has a picture, the screenshot shows only the picture, without the empty area below it.
    const framed = page.locator('.picture')
    if (await framed.count() === 1) await framed.screenshot({ path: shot })
    answer.shots.push(shot)
    await page.evaluate(() => { document.body.style.visibility = 'hidden' })
    if (pictures[view].equals(await page.screenshot({ fullPage: true }))) complain('nothing shows')
    await context.close()
}
for (const width of [1200, 390]) {
    if (pictures[`light ${width}`].equals(pictures[`dark ${width}`])) answer.problems.push(`${width}: dark is as light`)
}
await browser.close()
console.log(JSON.stringify(answer))
