// Opens the page in a real browser and prints what it saw as JSON.
// Arguments: the page's URL, the browser, a directory for screenshots or "".
// After "live" is read on stdin, the page is looked at once more.

import { chromium } from "playwright-core";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

const [url, executablePath, shots] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const foreign = [];
const complaints = [];

async function open(options) {
  const page = await browser.newPage(options);
  page.setDefaultTimeout(60000);
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) foreign.push(request.url());
  });
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`));
  await page.goto(url);
  await page.locator("article.host").first().waitFor();
  return page;
}

const look = (page) => page.evaluate(() => ({
  connection: document.getElementById("connection").textContent,
  hosts: [...document.querySelectorAll("article.host")].map((card) => ({
    id: card.dataset.host,
    text: card.innerText,
    health: card.querySelector(".badge").textContent,
  })),
  listeners: [...document.querySelectorAll("[data-scroll=listeners] tbody tr")].map((row) =>
    [...row.cells].map((cell) => cell.innerText)),
  map: [...document.querySelectorAll(".map .node")].map((node) => node.querySelector("text").textContent),
  problems: document.getElementById("problems").innerText,
  // It stands before everything else.
  first: document.querySelector("main h2").innerText,
  scripts: document.querySelectorAll("script").length,
  wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
}));

/// What axe finds against WCAG 2.2, level AA, in what the reader sees.
const axe = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
async function barriers(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  return found.violations.flatMap((v) => v.nodes.map((node) => `${v.id}: ${node.html}`));
}

/// The rows of each table, by its caption.
const tablesIn = (page, where) => page.evaluate((selector) => Object.fromEntries(
  [...document.querySelectorAll(`${selector} table`)].map((table) => [table.caption.innerText,
    [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText))])), where);

async function shot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
}

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

try {
  const page = await open({ viewport: { width: 1280, height: 800 } });
  await page.locator("#connection.good").waitFor();
  answer(await look(page));
  await lines.next();
  await page.locator("text=report 1000").first().waitFor();
  await page.locator("#problems li", { hasText: "accept queue" }).waitFor();
  answer(await look(page));
  // A node of the map opens as a link does, without loading the page anew.
  const mapPage = await open({ viewport: { width: 1280, height: 800 } });
  await mapPage.evaluate(() => { window.stays = true; });
  await mapPage.locator(".map a", { hasText: "no name" }).first().click();
  await mapPage.waitForURL(/upstream=$/);
  const nameless = mapPage.locator("figure", { hasText: "Requests to backends" });
  await nameless.locator("canvas").waitFor();
  const ofMap = { stays: await mapPage.evaluate(() => window.stays), nameless: await nameless.getAttribute("aria-label") };
  await mapPage.close();
  await shot(page, "fleet-light");

  await page.getByRole("searchbox").fill("hostile");
  await page.waitForFunction(() => document.querySelectorAll("article.host").length === 1);
  const shared = await open({ viewport: { width: 1280, height: 800 }, colorScheme: "dark" });
  await shot(shared, "fleet-dark");
  await shared.goto(page.url());
  await shared.locator("article.host").first().waitFor();
  await shared.waitForFunction(() => document.querySelectorAll("article.host").length === 1);

  const hostPage = await open({ viewport: { width: 1280, height: 800 } });
  await hostPage.locator("article.host").getByRole("link", { name: "web-1" }).click();
  await hostPage.locator("figure canvas").first().waitFor();
  const caption = (text) => hostPage.locator("figure", { hasText: text });
  await caption("Requests from clients").locator("canvas").waitFor();
  await caption("CPU").locator("canvas").waitFor();
  await caption("Time to answer clients, all").locator("canvas").waitFor();
  const tables = () => tablesIn(hostPage, "#details");
  const byBytes = await tables();
  await hostPage.getByRole("link", { name: "Retransmits" }).click();
  await hostPage.waitForURL(/sort=retransmits/);
  await hostPage.locator("th[aria-sort]", { hasText: "Retransmits" }).waitFor();
  // One upstream on all hosts, from its row.
  const upstreamPage = await open({ viewport: { width: 1280, height: 800 } });
  await upstreamPage.locator("#where").getByRole("link", { name: "api", exact: true }).click();
  await upstreamPage.waitForURL(/upstream=api/);
  await upstreamPage.locator("figure", { hasText: "Requests to backends" }).locator("canvas").waitFor();
  await upstreamPage.locator("#problems :is(.well, li)").first().waitFor();
  const upstream = {
    title: await upstreamPage.locator("#where-title").innerText(),
    problems: await upstreamPage.locator("#problems").innerText(),
    tables: await tablesIn(upstreamPage, "#where"),
    charts: await upstreamPage.locator("figure:visible figcaption").allInnerTexts(),
    requests: await upstreamPage.locator("figure", { hasText: "Requests to backends" }).getAttribute("aria-label"),
    barriers: await barriers(upstreamPage),
  };
  await upstreamPage.getByRole("link", { name: "api-2 (127.0.0.1:8082)" }).click();
  await upstreamPage.waitForURL(/backend=127/);
  await upstreamPage.getByRole("link", { name: "All hosts" }).click();
  await upstreamPage.locator("article.host").first().waitFor();
  await upstreamPage.close();
  // A listener has its accept queue.
  const listenerPage = await open({ viewport: { width: 1280, height: 800 } });
  await listenerPage.locator("#where").getByRole("link", { name: "127.0.0.1:8080" }).first().click();
  await listenerPage.waitForURL(/listener=127/);
  await listenerPage.locator("#where table", { hasText: "Listens on" }).waitFor();
  const listener = await tablesIn(listenerPage, "#where");
  await listenerPage.close();
  const dark = await open({ viewport: { width: 1280, height: 800 }, colorScheme: "dark" });
  await dark.goto(hostPage.url());
  await dark.locator("figure canvas").first().waitFor();
  const narrow = await open({ viewport: { width: 360, height: 740 } });
  answer({
    barriers: [...await barriers(page), ...await barriers(hostPage), ...await barriers(dark), ...await barriers(narrow)],
    url: hostPage.url(),
    upstream,
    listener,
    ofMap,
    tables: byBytes,
    sorted: (await tables())["Top sockets by bytes"],
    heat: await caption("Time to answer clients, all").getAttribute("aria-label"),
    requests: await caption("Requests from clients").getAttribute("aria-label"),
    backends: await caption("Requests to backends").getAttribute("aria-label"),
    connections: await caption("Connections of clients").getAttribute("aria-label"),
  });
  await shot(hostPage, "host-light");
  await hostPage.getByRole("link", { name: "5m" }).click();
  await hostPage.waitForURL(/range=5m/);
  const linked = await open({ viewport: { width: 1280, height: 800 }, colorScheme: "dark" });
  await linked.goto(hostPage.url());
  await linked.locator("figure canvas").first().waitFor();
  await linked.locator("nav a[aria-current]", { hasText: "5m" }).waitFor();
  await shot(linked, "host-dark");
  await linked.setViewportSize({ width: 360, height: 740 });
  await linked.waitForFunction(() =>
    document.documentElement.scrollWidth <= document.documentElement.clientWidth);
  await shot(linked, "host-360");
  // A range of one's own: from ten minutes ago to two, in this browser's time.
  const field = (minutesAgo) => {
    const date = new Date(Date.now() - minutesAgo * 60000);
    return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  };
  await hostPage.getByLabel("From", { exact: true }).fill(field(2));
  await hostPage.getByLabel("to", { exact: true }).fill(field(10));
  await hostPage.getByRole("button", { name: "Show" }).click();
  const refused = !/since=/.test(hostPage.url());
  await hostPage.getByLabel("From", { exact: true }).fill(field(10));
  await hostPage.getByLabel("to", { exact: true }).fill(field(2));
  const asked = hostPage.waitForResponse((r) => r.url().includes("/series?") && r.url().includes("until="));
  await hostPage.getByRole("button", { name: "Show" }).click();
  const series = await (await asked).json();
  await hostPage.waitForURL(/since=.*until=/);
  const custom = await open({ viewport: { width: 1280, height: 800 } });
  await custom.goto(hostPage.url());
  await custom.locator("figure canvas").first().waitFor();
  answer({
    refused,
    minutes: (Date.parse(series.until) - Date.parse(series.since)) / 60000,
    field: await custom.getByLabel("From", { exact: true }).inputValue() === field(10) || await custom.getByLabel("From", { exact: true }).inputValue() === field(11),
    current: await custom.locator("nav a[aria-current]").count(),
  });
  await hostPage.goBack();
  await hostPage.goBack();
  await hostPage.goBack();
  await hostPage.goBack();
  await hostPage.waitForFunction(() => document.querySelectorAll("article.host").length >= 3);

  // A button that is held while reports come clicks all the same.
  const held = await open({ viewport: { width: 1280, height: 800 } });
  await held.locator("#connection.good").waitFor();
  await held.locator("article.host").getByRole("link", { name: "web-1" }).hover();
  await held.mouse.down();
  answer({ held: true });
  await lines.next();
  await held.waitForTimeout(1500);
  await held.mouse.up();
  await held.waitForURL(/host=id-web-1/);
  // What is drawn anew does not scroll back to the link that was clicked.
  // Charts without a figure are taken away: the page is as long as it stays then.
  await held.waitForFunction(() => [...document.querySelectorAll("figure")].every((one) => one.hidden || one.querySelector("canvas")));
  // Nor does the browser, which else makes up for what changes its height above.
  await held.evaluate(() => {
    document.documentElement.style.overflowAnchor = "none";
    scrollTo(0, 600);
  });
  await held.evaluate(() => {
    window.drawn = 0;
    new MutationObserver(() => window.drawn++).observe(document.getElementById("hosts"), { childList: true });
  });
  const since = Date.now();
  answer({ focused: await held.evaluate(() => document.activeElement.dataset.focus) });
  await lines.next();
  await held.locator("text=report 1041").first().waitFor();
  const drawn = await held.evaluate(() => window.drawn);
  const ms = Date.now() - since;
  answer({ drawn, ms, scrolled: await held.evaluate(() => scrollY) });
  await held.close();

  await lines.next();
  const full = await open({ viewport: { width: 1280, height: 800 } });
  const painted = await full.waitForFunction(() =>
    document.querySelectorAll("article.host").length === 100 && performance.now());
  const first = await full.evaluate(() => Math.round(performance.getEntriesByName("first-contentful-paint")[0]?.startTime));
  answer({ hosts: await full.locator("article.host").count(), ms: Math.round(await painted.jsonValue()), first });
  await full.close();

  const phone = await open({ viewport: { width: 360, height: 740 } });
  await shot(phone, "fleet-360");
  answer({ ...(await look(phone)), foreign, complaints });
} finally {
  await browser.close();
  process.stdin.destroy();
}
