//! Leads Node's HTTP clients through the proxy that the environment names, where Node itself does not.
//
// `tracewire run` loads this into every Node process of a traced command (NODE_OPTIONS=--require). It must change
// nothing else: no output, no globals, no other route for hosts in NO_PROXY, Unix sockets, requests that bring their
// own proxying agent or dispatcher, or sockets that are not HTTP. A fault in here must leave the program as it was.
// It asks what is there, not which version of Node runs: what native proxy support covers already stays with it.
// Very old versions load this file too, so the syntax is that of 2018.
'use strict';

try {
  install(process.env);
} catch (_) {
  // The program matters more than the recording.
}

function install(environment) {
  const read = (name) => environment[name.toLowerCase()] || environment[name];
  const proxies = [proxyAt(read('HTTP_PROXY')), proxyAt(read('HTTPS_PROXY'))];
  if (!proxies[0] && !proxies[1]) return;
  const unproxied = (read('NO_PROXY') || '').toLowerCase().split(/[\s,]+/).filter(Boolean);
  const net = require('net');
  const http = require('http');
  const https = require('https');

  // One run inside another brings a second copy of this file.
  const mark = Symbol.for('tracewire.hook');
  if (mark in http.Agent.prototype) return;
  Object.defineProperty(http.Agent.prototype, mark, { value: true });

  /** The proxy for a destination, or null. NO_PROXY is read as Node reads it. */
  function proxyFor(secure, host, port) {
    const proxy = proxies[secure ? 1 : 0];
    // A client that reads the environment itself is on its way to the proxy already.
    if (!proxy || proxies.some((one) => one && one.host === host && one.port === Number(port))) return null;
    const name = bare(host).toLowerCase();
    const hit = (entry) =>
      entry === '*' || bare(entry) === name || entry === `${host}:${port}`.toLowerCase() ||
      entry === `${name}:${port}` || (/^\*?\./.test(entry) && `.${name}`.endsWith(entry.replace('*', '')));
    return unproxied.some(hit) ? null : proxy;
  }

  /** Returns a socket. `done` is called when it is connected to the destination, or with the error. */
  function tunnel(proxy, host, port, done) {
    const authority = `${bare(host).includes(':') ? `[${bare(host)}]` : host}:${port}`;
    const socket = net.connect(proxy.port, bare(proxy.host));
    let answer = Buffer.alloc(0);
    // Read on demand: a flowing socket could lose bytes between here and its next owner.
    const listeners = {
      readable() {
        for (let chunk; (chunk = socket.read()) !== null; ) answer = Buffer.concat([answer, chunk]);
        const end = answer.indexOf('\r\n\r\n');
        const rest = answer.slice(end + 4);
        if (end < 0) {
          if (answer.length > 65536) finish(refusal(authority, answer.slice(0, 80), ''));
        } else if (/^HTTP\/1\.\d 2\d\d/.test(answer.toString('latin1', 0, end))) {
          if (rest.length) socket.unshift(rest);
          finish(null);
        } else {
          const length = /\r\ncontent-length: *(\d+)/i.exec(answer.toString('latin1', 0, end));
          if (rest.length >= Math.min(length ? Number(length[1]) : Infinity, 65536)) listeners.end();
        }
      },
      end() {
        const end = answer.indexOf('\r\n\r\n');
        finish(end < 0 ? hangUp() : refusal(authority, answer.slice(0, end), answer.slice(end + 4)));
      },
      close: () => finish(hangUp()),
      error: (error) => finish(error),
    };
    function finish(error) {
      for (const event of Object.keys(listeners)) socket.removeListener(event, listeners[event]);
      socket.setTimeout(0);
      if (error) socket.on('error', () => {}).destroy();
      done(error);
    }
    for (const event of Object.keys(listeners)) socket.on(event, listeners[event]);
    socket.setNoDelay(true);
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${proxy.authorization}\r\n`);
    return socket;
  }

  /** As long as a request has no socket, Node can neither end nor time it, so both act on its tunnel. */
  function guard(req, socket, timeout) {
    const release = ['destroy', 'setTimeout'].map((name) => {
      const own = Object.getOwnPropertyDescriptor(req, name);
      const method = req[name];
      const value = function (first) {
        const result = method.apply(this, arguments);
        if (name === 'destroy') socket.destroy(first || hangUp());
        else socket.setTimeout(first);
        return result;
      };
      Object.defineProperty(req, name, { value, configurable: true, writable: true });
      return () => {
        if (req[name] !== value) return;
        delete req[name];
        if (own) Object.defineProperty(req, name, own);
      };
    });
    const late = () => req.emit('timeout');
    socket.setTimeout(req.timeout === undefined ? timeout || 0 : req.timeout).on('timeout', late);
    return () => {
      socket.removeListener('timeout', late);
      release.forEach((undo) => undo());
    };
  }

  // Agents. A plain agent gets its connections through the tunnel. That takes a while, yet an
  // agent's own createConnection may want a socket at once: so the first call only finds out whether Node's own
  // createConnection is reached (then it throws the attempt), and a second one is given the finished tunnel.
  let current = null;
  function within(attempt, run) {
    const outer = current;
    current = attempt;
    try {
      return run();
    } finally {
      current = outer;
    }
  }

  function createSocket(original, agent, args) {
    const [req, options, callback] = args;
    const target = Object.assign({}, options, agent.options);
    const direct = () => Reflect.apply(original, agent, args);
    // With a path of its own or an absolute URL, a socket, or `proxyEnv`, the program has chosen the route already.
    const routed = target.socketPath || target.socket || 'proxyEnv' in target || /^[a-z]+:\/\//i.test(req.path);
    if (routed || req.method === 'CONNECT') return within(null, direct);
    const attempt = { host: target.host, port: target.port, proxy: null, socket: null };
    try {
      return within(attempt, direct);
    } catch (thrown) {
      if (thrown !== attempt) throw thrown;
    }
    const name = agent.getName(target);
    const socket = tunnel(attempt.proxy, target.host, target.port, (error) => {
      release();
      agent.totalSocketCount--;
      if (!error) {
        agent.sockets[name].splice(agent.sockets[name].indexOf(socket), 1);
        attempt.socket = socket;
        try {
          within(attempt, direct);
        } catch (thrown) {
          error = thrown;
        }
        if (attempt.socket) socket.destroy();
        if (!error) return;
      }
      // A request that waited for its turn would otherwise be sent later, after its error.
      const waiting = agent.requests[name] || [];
      if (waiting.includes(req)) waiting.splice(waiting.indexOf(req), 1);
      if (!waiting.length) delete agent.requests[name];
      callback(error);
      agent.removeSocket(socket, target);
    });
    // It counts against maxSockets, and agent.destroy() reaches it.
    (agent.sockets[name] = agent.sockets[name] || []).push(socket);
    agent.totalSocketCount++;
    const release = guard(req, socket, target.timeout);
  }

  function createConnection(secure, original, agent, args) {
    const [options] = args;
    const attempt = current;
    const plain = options && typeof options === 'object' && !options.socket && !options.path && !options.socketPath;
    if (!attempt || !plain) return Reflect.apply(original, agent, args);
    if (!attempt.socket) {
      attempt.proxy = proxyFor(secure, attempt.host, attempt.port);
      if (attempt.proxy) throw attempt;
      return Reflect.apply(original, agent, args);
    }
    const socket = attempt.socket;
    attempt.socket = null;
    if (options.keepAlive) socket.setKeepAlive(true, options.keepAliveInitialDelay);
    return secure ? encrypt((all) => original.call(agent, all), options, socket) : timed(socket, options.timeout);
  }

  // The npm package ws makes its own connection, by one of two functions known by what they do (bundlers rename them).
  function request(secure, original, self, args) {
    const index = args.findIndex((one) => one && typeof one.createConnection === 'function');
    const options = args[index];
    const shape = secure ? /servername[^]*isIP[^]*connect/ : /path *= *[\w$]+\.socketPath[^]*connect/;
    const websocket = index >= 0 && !options.agent && options.agent !== false && !options.socketPath &&
      options.headers && options.headers.Upgrade === 'websocket' && shape.test(options.createConnection);
    if (!websocket) return Reflect.apply(original, self, args);
    let start = null;
    args[index] = Object.assign({}, options, {
      createConnection(given, callback) {
        const proxy = proxyFor(secure, given.host, given.port);
        if (!proxy) return options.createConnection(given, callback);
        start = (req) => {
          const socket = tunnel(proxy, given.host, given.port, (error) => {
            release();
            if (error) return callback(error);
            try {
              callback(null, secure ? encrypt(options.createConnection, given, socket) : timed(socket, given.timeout));
            } catch (thrown) {
              socket.destroy();
              callback(thrown);
            }
          });
          const release = guard(req, socket, given.timeout);
        };
      },
    });
    const req = Reflect.apply(original, self, args);
    if (start) start(req);
    return req;
  }

  function encrypt(create, options, socket) {
    // Node sees to the encrypted socket only; a late reset of the one below must not go unhandled.
    socket.on('error', () => {});
    return timed(create(Object.assign({}, options, { socket })), options.timeout);
  }

  /** undici's way to ask for a connection. */
  function connect(protocols, options, callback) {
    const secure = options.protocol === 'https:';
    const host = bare(options.hostname);
    const port = options.port || (secure ? 443 : 80);
    let socket = tunnel(proxyFor(secure, host, port), host, port, (error) => {
      if (error || !secure) return finish(error, socket);
      const servername = options.servername || (net.isIP(host) ? '' : host);
      const create = require('tls').connect;
      socket = encrypt(create, { host, servername, ALPNProtocols: protocols }, socket).once('error', finish);
      socket.once('secureConnect', () => finish(null, socket.removeListener('error', finish)));
    });
    // undici's own limit and error.
    const late = Object.assign(new Error('Connect Timeout Error'), { code: 'UND_ERR_CONNECT_TIMEOUT' });
    const timer = setTimeout(() => socket.destroy(late), 10000);
    function finish(error, connected) {
      clearTimeout(timer);
      if (connected) connected.setKeepAlive(true, 60000);
      callback(error, error ? undefined : connected);
    }
  }

  /** What undici has by default, but for destinations behind the proxy. */
  function dispatcher(direct, protocols) {
    const ignore = () => {};
    class Agent extends direct.constructor {
      dispatch(options, handler) {
        const { protocol, hostname, port } = new URL(options.origin);
        const secure = protocol === 'https:';
        const proxied = proxyFor(secure, hostname, port || (secure ? 443 : 80));
        return proxied ? super.dispatch(options, handler) : direct.dispatch(options, handler);
      }
      // Without a callback, undici calls these once more with one.
      close(callback) {
        if (callback) direct.close(ignore);
        return super.close(callback);
      }
      destroy(error, callback) {
        if (typeof error === 'function' || callback) direct.destroy(callback ? error : null, ignore);
        return super.destroy(error, callback);
      }
    }
    return new Agent({ connect: (options, callback) => connect(protocols, options, callback) });
  }

  // Every copy of undici (Node's own too, loaded on first use) looks for a global dispatcher as it is loaded, and
  // defines its default one if there is none. There is no other moment to get at it before the first request.
  const keys = [1, 2].map((version) => Symbol.for(`undici.globalDispatcher.${version}`));
  function looked() {
    const { defineProperty } = Object;
    let first = null;
    function watch(object, key, descriptor) {
      if (object === globalThis && keys.includes(key)) {
        if (key === keys[0]) restore();
        try {
          descriptor = Object.assign({}, descriptor, { value: replaced(descriptor.value) });
        } catch (_) {
          // Then undici's own stays.
        }
      }
      return defineProperty(object, key, descriptor);
    }
    function replaced(value) {
      if (!first) {
        const protocols = ['http/1.1'];
        first = { value, led: dispatcher(value, protocols), protocols };
      } else if (value !== first.value) {
        // undici 8, which speaks HTTP/2 by default, gives older copies a wrapper.
        first.protocols.push('h2');
        return new value.constructor(first.led);
      }
      return first.led;
    }
    function restore() {
      if (Object.defineProperty === watch) Object.defineProperty = defineProperty;
    }
    Object.defineProperty = watch;
    process.nextTick(restore);
  }

  const wrap = (object, name, handler) => {
    object[name] = new Proxy(object[name], { apply: handler });
  };
  wrap(http.Agent.prototype, 'createSocket', createSocket);
  [http, https].forEach((library, secure) => {
    wrap(library.Agent.prototype, 'createConnection', createConnection.bind(null, Boolean(secure)));
    wrap(library, 'request', request.bind(null, Boolean(secure)));
    wrap(library, 'get', request.bind(null, Boolean(secure)));
  });
  for (const key of keys) {
    if (key in globalThis) continue;
    const set = (value) => Object.defineProperty(globalThis, key, { value, writable: true, configurable: true });
    Object.defineProperty(globalThis, key, { get: looked, set, configurable: true });
  }
  require('module').syncBuiltinESMExports();
}

/** A proxy that is reached by plain HTTP; other kinds are left to those who know them. */
function proxyAt(text) {
  const url = text ? new URL(text) : { protocol: '' };
  if (url.protocol !== 'http:') return null;
  const user = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  const authorization = user === ':' ? '' : `Proxy-Authorization: Basic ${Buffer.from(user).toString('base64')}\r\n`;
  return { host: url.hostname, port: Number(url.port || 80), authorization };
}

function bare(host) {
  return host.replace(/^\[|\]$/g, '');
}

function timed(socket, timeout) {
  return timeout ? socket.setTimeout(timeout) : socket;
}

function hangUp() {
  return Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });
}

function refusal(authority, head, body) {
  const status = head.toString('latin1').split('\r\n')[0].replace(/^HTTP\/\S+ /, '');
  let reason = body.toString().trim();
  try {
    const { error } = JSON.parse(reason);
    reason = error.message || error;
  } catch (_) {
    // Not JSON: as it is.
  }
  const message = `The proxy answered CONNECT ${authority} with ${status}${reason && `: ${String(reason).slice(0, 1000)}`}`;
  return Object.assign(new Error(message), { code: 'ERR_PROXY_TUNNEL', statusCode: parseInt(status, 10) });
}
