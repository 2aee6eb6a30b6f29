// Looks at the pages of a host in headless Chromium. Argument: {"use", "url", "chromium", "shots", ...}; the last line printed is the outcome.
import { chromium } from 'playwright-core';

const input = JSON.parse(process.argv[2]);
const browser = await chromium.launch({
  executablePath: input.chromium,
  headless: true,
  timeout: 120_000,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } });
page.setDefaultTimeout(120_000);

const complaints = [];
const foreign = [];
page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) complaints.push(message.text()); });
page.on('pageerror', (error) => complaints.push(String(error)));
page.on('request', (request) => {
  const url = new URL(request.url());
  if (!['data:', 'blob:'].includes(url.protocol) && url.origin !== new URL(input.url).origin) foreign.push(request.url());
});
page.on('response', (response) => { if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`); });

const shoot = (name, options = {}) => page.screenshot({ path: `${input.shots}/${name}.png`, ...options });
const texts = (locator) => locator.allInnerTexts();

// Opens an operation of Swagger UI, sends it as it stands, and reads what came back
async function execute(id) {
  const operation = page.locator(`[id="${id}"]`);
  await operation.locator('.opblock-summary-control').first().click();
  await operation.getByRole('button', { name: 'Try it out' }).click();
  await operation.getByRole('button', { name: 'Execute', exact: true }).click();
  const live = operation.locator('.live-responses-table .response').first();
  await live.waitFor();
  await operation.screenshot({ path: `${input.shots}/${id}.png` });
  return {
    status: (await live.locator('.response-col_status').innerText()).trim().split(/\s/)[0],
    body: await live.locator('.highlight-code code, .microlight').first().innerText(),
    curl: await operation.locator('.curl-command, .curl').first().innerText(),
  };
}

const uses = {
  async swagger() {
    await page.goto(`${input.url}${input.path}`);
    await page.locator('.opblock').first().waitFor();
    const found = {
      title: (await page.locator('.info .title').innerText()).trim(),
      groups: await texts(page.locator('.opblock-tag-section h3 > a')),
      descriptions: await texts(page.locator('.opblock-tag-section h3 > small')),
      operations: await page.locator('.opblock').evaluateAll((blocks) => blocks.map((block) => block.id)),
    };
    await shoot('swagger', { fullPage: true });
    return found;
  },
  async execute() {
    await page.goto(`${input.url}swagger`);
    await page.locator('.opblock').first().waitFor();
    return execute(input.operation);
  },
  async redoc() {
    await page.goto(`${input.url}redoc`);
    await page.getByRole('heading', { name: 'ModelHost' }).first().waitFor();
    await page.getByRole('heading', { name: 'Create a chat completion' }).waitFor();
    await shoot('redoc');
    return { menu: await texts(page.locator('.menu-content [data-item-id^="tag/"]:not([data-item-id*="/operation"]) > label')) };
  },
  async welcome() {
    await page.goto(input.url);
    await shoot('welcome');
    const found = { title: await page.title(), heading: await page.locator('h1').innerText(), rows: await texts(page.locator('tbody tr')) };
    await page.getByRole('link', { name: 'Swagger UI' }).click();
    await page.locator('.opblock').first().waitFor();
    return { ...found, next: page.url() };
  },
};

try {
  const value = await uses[input.use]();
  console.log(JSON.stringify({ ...value, complaints, foreign }));
} catch (error) {
  await shoot('failed').catch(() => {});
  console.error(complaints, foreign);
  throw error;
} finally {
  await browser.close();
}
