// One use of the OpenAI SDK against a control plane. Argument: {"use", "baseURL", "model", ...}; the last line printed is the outcome.
import OpenAI, { toFile } from 'openai';

const input = JSON.parse(process.argv[2]);
const { model } = input;
const client = new OpenAI({ baseURL: input.baseURL, apiKey: input.key ?? 'none', ...(input.retries === undefined ? {} : { maxRetries: input.retries }) });
const messages = [{ role: 'user', content: 'Say something.' }];

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }];

const uses = {
  async models() {
    const found = [];
    for await (const card of client.models.list()) found.push(card);
    return found;
  },
  chat: () => client.chat.completions.create({ model, messages, max_completion_tokens: 7 }),
  // retried on purpose until the model is up
  chatDefault: () => client.chat.completions.create({ model, messages }),
  async stream() {
    const began = performance.now();
    const stream = await client.chat.completions.create({ model, messages, max_completion_tokens: 10, stream: true, stream_options: { include_usage: true } });
    const seen = [];
    let usage = null;
    let finish = null;
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) seen.push(performance.now() - began);
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    return { seen, usage, finish };
  },
  // without stream_options: what the gateway asks for beside it must not show
  async plainStream() {
    const stream = await client.chat.completions.create({ model, messages, max_completion_tokens: 10, stream: true });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return { text: chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join(''), usages: chunks.filter((chunk) => chunk.usage).length };
  },
  tools: () => client.chat.completions.create({ model, messages: [{ role: 'user', content: 'call' }], tools }),
  toolsStream: () => client.chat.completions.stream({ model, messages: [{ role: 'user', content: 'call' }], tools }).finalChatCompletion(),
  async speech() {
    const answer = await client.audio.speech.create({ model, input: 'hello', voice: 'alloy', response_format: 'wav' });
    return Buffer.from(await answer.arrayBuffer()).toString('latin1');
  },
  completion: () => client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 5 }),
  async completionStream() {
    const stream = await client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 5, stream: true });
    const texts = [];
    for await (const chunk of stream) texts.push(chunk.choices[0].text);
    return texts;
  },
  responses: () => client.responses.create({ model, input: 'Say something.', max_output_tokens: 7 }),
  async responsesStream() {
    const stream = await client.responses.create({ model, input: 'Say something.', max_output_tokens: 7, stream: true });
    const types = [];
    let text = '';
    let final = null;
    for await (const event of stream) {
      types.push(event.type);
      if (event.type === 'response.output_text.delta') text += event.delta;
      if (event.type === 'response.completed') final = event.response;
    }
    return { types, text, final };
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model, input: ['one', 'two'] });
    return answer.data.map((entry) => entry.embedding.length);
  },
  async transcription() {
    const file = await toFile(Buffer.from(input.file, 'base64'), 'speech.wav', { type: 'audio/wav' });
    return (await client.audio.transcriptions.create({ model, file })).text;
  },
  badRequest: () => client.chat.completions.create({ model, messages, temperature: -1 }),
  async abort() {
    const stream = await client.chat.completions.create({ model, messages, max_completion_tokens: 1000, stream: true });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const left = performance.now();
    stream.controller.abort();
    // this process lives on, so that it is not its end that closes the connection
    while (performance.now() - left < 60_000) {
      const page = await (await fetch(`${input.engine}/metrics`)).text();
      if (/^vllm:request_success_total\{[^}]*finished_reason="abort"[^}]*\} 1(\.0)?$/m.test(page)) break;
    }
    return performance.now() - left;
  },
};

let outcome;
try {
  outcome = { value: await uses[input.use]() };
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  // the names of the classes that users write in their catch clauses
  const type = ['NotFoundError', 'InternalServerError', 'BadRequestError', 'AuthenticationError', 'PermissionDeniedError'].find((name) => error instanceof OpenAI[name]);
  outcome = { error: { type, status: error.status, code: error.code, message: error.message, retryAfter: error.headers?.get('retry-after') } };
}
console.log(JSON.stringify(outcome));
