// Opens the page of a collector whose engine answers in part, and prints what
// it says about that.  Arguments: the page's URL, the browser.

import { chromium } from "playwright-core";

const [url, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(20000);
  await page.goto(url);
  await page.locator("article.host").first().waitFor();
  await page.locator("#partial:not([hidden])").waitFor();
  process.stdout.write(`${JSON.stringify({
    problems: await page.locator("#problems", { hasText: "Nobody" }).innerText(),
    role: await page.locator("#partial").getAttribute("role"),
    text: await page.locator("#partial").innerText(),
    hosts: await page.locator("article.host").count(),
  })}\n`);
} finally {
  await browser.close();
}
