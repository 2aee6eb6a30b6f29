// backend.mjs --addr HOST:PORT. Prompts that are words of command play a backend in trouble: "die", "hang", "fail CODE TEXT", "long BYTES", "options".
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const require = createRequire(new URL('../../../ModelHost.IntegrationTests/js/package.json', import.meta.url));
const grpc = require('@grpc/grpc-js');
const proto = grpc.loadPackageDefinition(require('@grpc/proto-loader').loadSync(
    fileURLToPath(new URL('old.proto', import.meta.url)), { keepCase: true, longs: Number, enums: String, defaults: true }));

const address = process.argv[process.argv.indexOf('--addr') + 1];
const token = process.env.LOCALAI_GRPC_AUTH_TOKEN ?? '';
let model = null;
let generated = 0;
const store = new Map();

const fail = (code, details) => Object.assign(new Error(details), { code, details });
const guarded = handler => (call, reply) => {
    const told = call.metadata.get('authorization')[0];
    if (token && told !== `Bearer ${token}`)
        return reply ? reply(fail(grpc.status.UNAUTHENTICATED, 'no token')) : call.emit('error', fail(grpc.status.UNAUTHENTICATED, 'no token'));
    return handler(call, reply);
};
const loaded = handler => guarded((call, reply) => model ? handler(call, reply)
    : reply(fail(grpc.status.FAILED_PRECONDITION, 'node-backend: model not loaded')));

function command(prompt, reply) {
    const [word, ...rest] = prompt.split(' ');
    switch (word) {
        case 'die': process.exit(3);
        case 'hang': return true;
        case 'fail': reply(fail(Number(rest[0]), rest.slice(1).join(' '))); return true;
        case 'long': reply(null, { message: Buffer.alloc(Number(rest[0]), 'x') }); return true;
        case 'options': reply(null, { message: Buffer.from(JSON.stringify(model)) }); return true;
        default: return false;
    }
}

// with a template of the model's the last message is the prompt
const promptOf = request => request.UseTokenizerTemplate ? request.Messages.at(-1)?.content ?? '' : request.Prompt;
const words = text => text.split(/\s+/).filter(Boolean);
const key = floats => floats.map(f => Math.fround(f)).join(',');
const cosine = (a, b) => {
    const dot = a.reduce((sum, x, i) => sum + x * b[i], 0);
    return dot / (Math.hypot(...a) * Math.hypot(...b));
};

const server = new grpc.Server({ 'grpc.max_receive_message_length': 50 << 20, 'grpc.max_send_message_length': 60 << 20 });
server.addService(proto.backend.Backend.service, {
    Health: guarded((_, reply) => reply(null, { message: Buffer.from('OK') })),
    LoadModel: guarded(({ request }, reply) => {
        if (request.Model.startsWith('bad'))
            return reply(null, { success: false, message: `cannot load ${request.Model}: no such file` });
        if (request.Options.includes('die:on_load'))
            process.exit(7);
        model = request;
        console.log(`node-backend loaded ${request.Model}`);
        reply(null, { success: true, message: 'loaded' });
    }),
    Predict: loaded(({ request }, reply) => {
        if (command(promptOf(request), reply))
            return;
        const answer = request.UseTokenizerTemplate ? request.Messages.map(m => `${m.role}: ${m.content}`).join('\n') : `echo ${request.Prompt}`;
        generated += words(answer).length;
        reply(null, { message: Buffer.from(answer), tokens: words(answer).length, prompt_tokens: words(request.Prompt).length });
    }),
    PredictStream: guarded(call => {
        const Prompt = promptOf(call.request);
        let count = 0;
        if (Prompt === 'forever') {
            const timer = setInterval(() => call.write({ message: Buffer.from('again '), tokens: ++count }), 20);
            call.on('cancelled', () => { clearInterval(timer); console.log('node-backend cancelled'); });
            return;
        }
        for (const word of words(Prompt)) {
            if (word === 'fail')
                return call.emit('error', fail(grpc.status.INTERNAL, 'the stream broke'));
            call.write({ message: Buffer.from(word + ' '), tokens: ++count, prompt_tokens: words(Prompt).length });
        }
        call.end();
    }),
    Embedding: loaded(({ request }, reply) => reply(null, { embeddings: [request.Embeddings.length, request.EmbeddingTokens.length, 0.5, -1] })),
    TokenizeString: loaded(({ request }, reply) => {
        const tokens = [...request.Prompt].map(c => c.codePointAt(0));
        reply(null, { length: tokens.length, tokens });
    }),
    Status: guarded((_, reply) => reply(null, {
        state: model ? 'READY' : 'UNINITIALIZED', memory: { total: 1073741824, breakdown: { weights: 536870912, kv_cache: 268435456 } },
    })),
    GetMetrics: guarded((_, reply) => reply(null, { slot_id: 1, tokens_per_second: 12.5, tokens_generated: generated, prompt_tokens_processed: 7 })),
    TTS: loaded(({ request }, reply) => {
        writeFileSync(request.dst, Buffer.concat([Buffer.from('RIFF'), Buffer.from(request.text + request.voice)]));
        reply(null, { success: true });
    }),
    AudioTranscription: loaded(({ request }, reply) => {
        const text = `heard ${readFileSync(request.dst).length} bytes`;
        reply(null, { text, segments: [{ id: 0, start: 0, end: 1500000000, text }] });
    }),
    Rerank: loaded(({ request }, reply) => {
        const results = request.documents.map((text, index) => ({ index, text, relevance_score: words(text).filter(w => request.query.includes(w)).length }))
            .sort((a, b) => b.relevance_score - a.relevance_score).slice(0, request.top_n || undefined);
        reply(null, { usage: { total_tokens: 9, prompt_tokens: 9 }, results });
    }),
    StoresSet: loaded(({ request }, reply) => {
        if (!request.Keys.length || request.Keys.length !== request.Values.length)
            return reply(fail(grpc.status.UNKNOWN, `len(keys) = ${request.Keys.length}, len(values) = ${request.Values.length}`));
        request.Keys.forEach((k, i) => store.set(key(k.Floats), { Floats: k.Floats, Bytes: request.Values[i].Bytes }));
        reply(null, { success: true, message: 'Set key' });
    }),
    StoresDelete: loaded(({ request }, reply) => {
        request.Keys.forEach(k => store.delete(key(k.Floats)));
        reply(null, { success: true, message: 'Deleted key' });
    }),
    StoresGet: loaded(({ request }, reply) => {
        const found = request.Keys.map(k => store.get(key(k.Floats))).filter(Boolean);
        reply(null, { Keys: found.map(f => ({ Floats: f.Floats })), Values: found.map(f => ({ Bytes: f.Bytes })) });
    }),
    StoresFind: loaded(({ request }, reply) => {
        const best = [...store.values()].map(entry => ({ ...entry, at: cosine(entry.Floats, request.Key.Floats) }))
            .sort((a, b) => b.at - a.at).slice(0, request.TopK);
        reply(null, { Keys: best.map(b => ({ Floats: b.Floats })), Values: best.map(b => ({ Bytes: b.Bytes })), Similarities: best.map(b => b.at) });
    }),
});
server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) {
        console.error(`node-backend cannot listen: ${error.message}`);
        process.exit(1);
    }
    console.log(`node-backend listens on ${port}`);
});
