// Opens the views of docs/answers.md and prints what each has.
// Arguments: the collector's URL, the browser, the views as JSON.

import { chromium } from "playwright-core";

const [url, executablePath, views] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const found = {};
try {
  for (const view of JSON.parse(views)) {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(60000);
    const refused = [];
    page.on("response", (answer) => {
      if (answer.url().includes("/api/") && !answer.ok()) refused.push(`${answer.status()} ${answer.url()}`);
    });
    page.on("pageerror", (error) => refused.push(String(error)));
    await page.goto(new URL(view, url).href);
    await page.locator("#where table, article.host").first().waitFor();
    // Charts without a figure are taken away, the others are drawn.
    await page.waitForFunction(() => [...document.querySelectorAll("figure")].every((one) => one.hidden || one.querySelector("canvas")));
    found[view] = {
      refused,
      unknown: await page.locator("#unknown").isVisible(),
      names: await page.locator("h2, caption, figcaption").allInnerTexts(),
      drawn: await page.locator("figure:visible figcaption").allInnerTexts(),
      sorted: await page.locator("th[aria-sort] a").evaluateAll((links) => links.map((link) => link.dataset.focus)),
    };
    await page.close();
  }
  process.stdout.write(`${JSON.stringify(found)}\n`);
} finally {
  await browser.close();
}
