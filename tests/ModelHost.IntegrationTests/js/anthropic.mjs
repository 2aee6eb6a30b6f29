// Anthropic's SDK against a control plane. Argument: {"baseURL", "model", "key"}; the last line printed is the outcome.
import Anthropic from '@anthropic-ai/sdk';

const input = JSON.parse(process.argv[2]);
const client = new Anthropic({ baseURL: input.baseURL, apiKey: input.key, maxRetries: 0 });
const request = { model: input.model, max_tokens: 7, messages: [{ role: 'user', content: 'Say something.' }] };

let outcome;
try {
  const whole = await client.messages.create(request);
  const stream = client.messages.stream(request);
  const final = await stream.finalMessage();
  const count = await client.messages.countTokens({ model: request.model, messages: request.messages });
  outcome = {
    text: whole.content[0].text, stop: whole.stop_reason, usage: whole.usage,
    streamedText: final.content[0].text, streamedUsage: final.usage, count: count.input_tokens,
  };
} catch (error) {
  if (!(error instanceof Anthropic.APIError)) throw error;
  outcome = { error: error.constructor.name, status: error.status, message: error.message };
}
console.log(JSON.stringify(outcome));
