// grpc-js as a peer: `rpc.mjs serve` is the service Echo until its input ends, `rpc.mjs call TARGET` uses one and prints what it met.
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const proto = fileURLToPath(new URL('../Rpc/echo.proto', import.meta.url));
const { Echo } = grpc.loadPackageDefinition(loader.loadSync(proto)).modelhost.test;
const limits = {
  'grpc.max_receive_message_length': 16 << 20,
  'grpc.max_send_message_length': 16 << 20,
  'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip,
};

function serve() {
  const server = new grpc.Server(limits);
  server.addService(Echo.service, {
    Say(call, done) {
      const fail = /^fail (\d+) ([^]*)$/.exec(call.request.value);
      if (fail) done({ code: Number(fail[1]), details: fail[2] });
      else if (call.request.value !== 'hang') done(null, call.request);
    },
    Count(call) {
      const count = parseInt(call.request.value, 10);
      for (let i = 0; i < count; i++) call.write({ value: `${i}` });
      if (call.request.value.endsWith('!')) call.emit('error', { code: grpc.status.DATA_LOSS, details: 'the rest is gone' });
      else call.end();
    },
    Join(call, done) {
      let all = '';
      call.on('data', message => { all += message.value; });
      call.on('end', () => done(null, { value: all }));
    },
    Talk(call) {
      call.on('data', message => call.write(message));
      call.on('end', () => call.end());
    },
  });
  server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(JSON.stringify({ port }));
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

async function call(target) {
  const client = new Echo(target, grpc.credentials.createInsecure(), limits);
  const plain = new Echo(target, grpc.credentials.createInsecure(), { ...limits, 'grpc.default_compression_algorithm': 0 });
  const unary = (value, options = {}, peer = client) => new Promise(resolve =>
    peer.Say({ value }, options, (error, answer) => resolve(error ? { code: error.code, detail: error.details } : { value: answer.value })));
  const stream = call => new Promise(resolve => {
    const values = [];
    call.on('data', message => values.push(message.value));
    call.on('error', error => resolve({ values, code: error.code, detail: error.details }));
    call.on('end', () => resolve({ values, code: 0, detail: '' }));
  });
  const say = await unary('Grüße');
  const sayPlain = await unary('Grüße', {}, plain);
  const fail = await unary('fail NotFound 100% schön\n日本');
  const hang = await unary('hang', { deadline: Date.now() + 3000 });
  const long = await unary('x'.repeat(9 << 20));
  const count = await stream(client.Count({ value: '3' }));
  const broken = await stream(client.Count({ value: '3!' }));
  const join = await new Promise(resolve => {
    const call = client.Join((error, answer) => resolve(error ? { code: error.code } : { value: answer.value }));
    for (const value of ['a', 'b', 'c']) call.write({ value });
    call.end();
  });
  const duplex = client.Talk();
  const talk = [];
  await new Promise((resolve, reject) => {
    duplex.on('error', reject);
    duplex.on('end', resolve);
    duplex.on('data', message => {
      talk.push(message.value);
      if (talk.length < 5) duplex.write({ value: `${talk.length}` });
      else duplex.end();
    });
    duplex.write({ value: '0' });
  });
  const many = await Promise.all(Array.from({ length: 250 }, (_, i) => unary(`${i}`)));
  const unknown = await new Promise(resolve => client.makeUnaryRequest('/modelhost.test.Echo/No', b => b, b => b, Buffer.alloc(0), error => resolve({ code: error.code })));
  console.log(JSON.stringify({
    say, sayPlain, fail, hang, count, broken, join, talk, unknown,
    long: long.value?.length ?? long.code, many: many.every((answer, i) => answer.value === `${i}`),
  }));
  process.exit(0);
}

const [mode, target] = process.argv.slice(2);
if (mode === 'serve') serve();
else await call(target);
