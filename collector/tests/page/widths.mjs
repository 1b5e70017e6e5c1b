// Opens the page at several widths and prints what is cut off there, what a
// search leaves, what an unknown host shows, and how the heat map's axis reads.
// Arguments: the page's URL, the browser, a directory for screenshots or "".

import { chromium } from "playwright-core";

const [url, executablePath, shots] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

/// Figures that a reader does not see whole: outside of the window, or in a
/// table that is wider than its place.
const cutOff = (page) => page.evaluate(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = [...document.querySelectorAll(".scroll")]
    .filter((one) => one.scrollWidth > one.clientWidth)
    .map((one) => `scrolls: ${one.dataset.scroll} ${one.scrollWidth} > ${one.clientWidth}`);
  // Minor columns may be left out.
  const cells = [...document.querySelectorAll("td:not(.minor)")]
    .filter((cell) => {
      const { left, right, height } = cell.getBoundingClientRect();
      return left < 0 || right > width || height === 0;
    })
    .map((cell) => `outside: ${cell.dataset.head} ${cell.innerText}`);
  return [...scrolls, ...cells];
});

async function open(width, path) {
  const page = await browser.newPage({ viewport: { width, height: 900 } });
  page.setDefaultTimeout(60000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  // What canvases say is nowhere in the document.
  await page.addInitScript(() => {
    window.written = [];
    const write = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
      window.written.push(text);
      return write.call(this, text, ...rest);
    };
  });
  await page.goto(new URL(path, url).href);
  return { page, errors };
}

const shot = (page, name) => (shots ? page.screenshot({ path: `${shots}/${name}.png`, fullPage: true }) : null);
const found = {};
try {
  for (const width of [1400, 1024, 390]) {
    const { page, errors } = await open(width, "/?host=id-wide");
    await page.locator("#details table").first().waitFor();
    const heat = page.locator("figure", { hasText: "Time to answer clients, all" });
    await heat.locator("canvas").waitFor();
    found[width] = { cut: await cutOff(page), figures: await page.locator("#details td:visible").count(), errors };
    found.labels = await page.evaluate(() => [...new Set(window.written.filter((text) => text.endsWith("µs")))].sort());
    found.unseen = await page.locator("#details tbody tr", { hasText: "8443" })
      .evaluate((row) => [...row.cells].map((cell) => [cell.innerText, cell.querySelector("abbr")?.title ?? ""]));
    found.cpu = await page.locator(".gauge", { hasText: "CPU" }).innerText();
    await shot(page, `host-${width}`);
    await page.goto(new URL("/?upstream=payments-production", url).href);
    await page.locator("#where table").first().waitFor();
    found[width].cut.push(...await cutOff(page));
    await shot(page, `upstream-${width}`);
    await page.goto(new URL("/", url).href);
    await page.locator("article.host").first().waitFor();
    found[width].cut.push(...await cutOff(page));
    await shot(page, `fleet-${width}`);
    await page.close();
  }
  const { page } = await open(1280, "/");
  await page.locator("article.host").first().waitFor();
  await page.getByRole("searchbox").fill("checkout-2");
  await page.waitForFunction(() => document.querySelectorAll("article.host").length === 1);
  found.search = await page.locator("#where table").evaluateAll((tables) => tables.map((table) => ({
    caption: table.caption.textContent,
    names: [...table.tBodies[0].rows].map((row) => row.cells[0].innerText),
  })));
  await page.getByRole("searchbox").fill("nowhere");
  await page.locator("#unknown").waitFor();
  found.nothing = await page.locator("#unknown").innerText();
  // A collector that takes longer than charts are old is asked once.
  const { page: slow } = await open(1280, "/");
  found.asked = 0;
  await slow.route(/api\/v1\/(series|heatmap)/, () => { found.asked += 1; });
  await slow.goto(new URL("/?host=id-wide&range=5m", url).href);
  await slow.locator("figure").first().waitFor();
  found.charts = await slow.locator("figure").count();
  await slow.waitForTimeout(12000);
  await slow.close();
  await page.goto(new URL("/?host=gone", url).href);
  await page.locator("#unknown").waitFor();
  found.unknown = {
    text: await page.locator("#unknown").innerText(),
    history: await page.locator("#history").isVisible(),
    back: await page.getByRole("link", { name: "All hosts" }).isVisible(),
  };
  process.stdout.write(`${JSON.stringify(found)}\n`);
} finally {
  await browser.close();
}
