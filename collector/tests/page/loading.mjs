// Opens the page of a collector without hosts, holds its answer back, and prints
// what the page says before and after it.  Arguments: the page's URL, the browser.

import { chromium } from "playwright-core";

const [url, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(20000);
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  await page.route("**/api/v1/hosts", async (route) => {
    await released;
    await route.continue();
  });
  await page.goto(url);
  // It has drawn by then, and watches.
  await page.locator("#connection.good").waitFor();
  await page.locator("#fleet dd").first().waitFor();
  const look = async () => ({
    loading: await page.locator("#loading").isVisible(),
    empty: await page.locator("#empty").isVisible(),
  });
  const before = await look();
  release();
  await page.locator("#loading").waitFor({ state: "hidden" });
  process.stdout.write(`${JSON.stringify({ before, after: await look() })}\n`);
} finally {
  await browser.close();
}
