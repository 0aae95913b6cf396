import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.eclipse.californium.core.CoapClient;
import org.eclipse.californium.core.CoapHandler;
import org.eclipse.californium.core.CoapObserveRelation;
import org.eclipse.californium.core.CoapResource;
import org.eclipse.californium.core.CoapResponse;
import org.eclipse.californium.core.CoapServer;
import org.eclipse.californium.core.coap.CoAP.Code;
import org.eclipse.californium.core.coap.CoAP.ResponseCode;
import org.eclipse.californium.core.coap.CoAP.Type;
import org.eclipse.californium.core.coap.Option;
import org.eclipse.californium.core.coap.OptionSet;
import org.eclipse.californium.core.coap.Request;
import org.eclipse.californium.core.coap.Response;
import org.eclipse.californium.core.coap.option.OpaqueOptionDefinition;
import org.eclipse.californium.core.config.CoapConfig;
import org.eclipse.californium.core.network.CoapEndpoint;
import org.eclipse.californium.core.server.resources.CoapExchange;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.elements.config.UdpConfig;

/**
 * A CoAP server and client on Californium, driven over standard input and output (test/peers/protocol.ts says how).
 *
 * <pre>
 * Peer server HOST PORT     serves the resources that every peer serves, until standard input ends
 * Peer client HOST PORT     one command a line, one JSON result a line
 * </pre>
 */
public final class Peer {
  private static final String SMALL = "a small body of 29 octets: ok";
  private static final long PATIENCE_MS = 8000;

  private Peer() {}

  private static byte[] pattern(int size, int seed) {
    byte[] out = new byte[size];
    for (int i = 0; i < size; i++) out[i] = (byte) (i * 31 + (i >> 8) * 17 + seed);
    return out;
  }

  private static byte[] unhex(String text) {
    byte[] out = new byte[text.length() / 2];
    for (int i = 0; i < out.length; i++) out[i] = (byte) Integer.parseInt(text.substring(2 * i, 2 * i + 2), 16);
    return out;
  }

  private static String hex(byte[] octets) {
    StringBuilder out = new StringBuilder();
    for (byte octet : octets) out.append(String.format("%02x", octet));
    return out.toString();
  }

  // ------------------------------------------------------------------ server

  private static class Fixed extends CoapResource {
    private final byte[] body;
    private final int format;
    private final byte[] tag;

    Fixed(String name, byte[] body, int format, byte[] tag) {
      super(name);
      this.body = body;
      this.format = format;
      this.tag = tag;
    }

    @Override
    public void handleGET(CoapExchange exchange) {
      if (tag != null) exchange.setETag(tag);
      exchange.respond(ResponseCode.CONTENT, body, format);
    }
  }

  private static final class Slow extends CoapResource {
    private final ScheduledExecutorService timer;

    Slow(ScheduledExecutorService timer) {
      super("slow");
      this.timer = timer;
    }

    @Override
    public void handleGET(CoapExchange exchange) {
      exchange.accept(); // the empty acknowledgement
      timer.schedule(() -> exchange.respond(ResponseCode.CONTENT, "late"), 500, TimeUnit.MILLISECONDS);
    }
  }

  private static final class Ticking extends CoapResource {
    private final boolean large;
    private volatile int count;

    Ticking(String name, boolean large, long everyMs, ScheduledExecutorService timer) {
      super(name);
      this.large = large;
      setObservable(true);
      setObserveType(Type.NON);
      getAttributes().setObservable();
      timer.scheduleAtFixedRate(
          () -> {
            count++;
            changed();
          },
          everyMs,
          everyMs,
          TimeUnit.MILLISECONDS);
    }

    @Override
    public void handleGET(CoapExchange exchange) {
      int now = count;
      if (large) {
        exchange.setETag(new byte[] {0x20, (byte) (now >> 8), (byte) now});
        exchange.respond(ResponseCode.CONTENT, pattern(10240, now & 255), 42);
      } else {
        exchange.respond(ResponseCode.CONTENT, "tick " + now);
      }
    }
  }

  private static final class Store extends CoapResource {
    private byte[] body = {};

    Store() {
      super("store");
    }

    @Override
    public void handleGET(CoapExchange exchange) {
      exchange.respond(ResponseCode.CONTENT, body, 42);
    }

    @Override
    public void handlePUT(CoapExchange exchange) {
      body = exchange.getRequestPayload();
      exchange.respond(ResponseCode.CHANGED);
    }

    @Override
    public void handlePOST(CoapExchange exchange) {
      handlePUT(exchange);
    }
  }

  private static final class Tagged extends CoapResource {
    private static final byte[] TAG = {0x65, 0x30, 0x31};

    Tagged() {
      super("etag");
    }

    @Override
    public void handleGET(CoapExchange exchange) {
      exchange.setETag(TAG);
      if (exchange.getRequestOptions().containsETag(TAG)) exchange.respond(ResponseCode.VALID);
      else exchange.respond(ResponseCode.CONTENT, "tagged body");
    }
  }

  private static final class Picky extends CoapResource {
    Picky() {
      super("accept");
    }

    @Override
    public void handleGET(CoapExchange exchange) {
      OptionSet options = exchange.getRequestOptions();
      if (options.hasAccept() && options.getAccept() != 0) exchange.respond(ResponseCode.NOT_ACCEPTABLE);
      else exchange.respond(ResponseCode.CONTENT, "plain", 0);
    }
  }

  private static final class Guarded extends CoapResource {
    private static final byte[] TAG = {0x65, 0x30, 0x32};

    Guarded() {
      super("ifmatch");
    }

    @Override
    public void handlePUT(CoapExchange exchange) {
      OptionSet options = exchange.getRequestOptions();
      boolean matches = options.getIfMatch().stream().anyMatch(tag -> Arrays.equals(tag, TAG));
      boolean failed = options.hasIfNoneMatch() || (options.getIfMatchCount() > 0 && !matches);
      exchange.respond(failed ? ResponseCode.PRECONDITION_FAILED : ResponseCode.CHANGED);
    }
  }

  private static void server(Configuration configuration, String host, int port) throws Exception {
    ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);
    CoapServer server = new CoapServer(configuration);
    server.addEndpoint(
        new CoapEndpoint.Builder()
            .setConfiguration(configuration)
            .setInetSocketAddress(new InetSocketAddress(InetAddress.getByName(host), port))
            .setCriticalCustomOptions(new int[] {}) // none is known beyond Californium's own: 4.02
            .build());
    server.add(new Fixed("small", SMALL.getBytes(StandardCharsets.US_ASCII), 0, null));
    server.add(new Fixed("large", pattern(10240, 1), 42, new byte[] {0x10, 0x01}));
    server.add(new Fixed("reading", pattern(175, 3), 18, null));
    server.add(new Fixed("critical", SMALL.getBytes(StandardCharsets.US_ASCII), 0, null));
    server.add(new Slow(timer), new Store(), new Tagged(), new Picky(), new Guarded());
    server.add(new Ticking("obs", false, 50, timer), new Ticking("obslarge", true, 400, timer));
    server.start();
    System.out.println("{\"ready\":true,\"port\":" + port + "}");
    while (System.in.read() >= 0) continue;
    server.destroy();
    timer.shutdownNow();
  }

  // ------------------------------------------------------------------ client

  private static String outcome(Response response) {
    StringBuilder out = new StringBuilder();
    out.append("\"code\":\"").append(response.getCode().text).append("\",\"payload\":\"");
    out.append(hex(response.getPayload())).append('"');
    if (!response.getOptions().getETags().isEmpty())
      out.append(",\"etag\":\"").append(hex(response.getOptions().getETags().get(0))).append('"');
    if (response.getOptions().hasContentFormat())
      out.append(",\"format\":").append(response.getOptions().getContentFormat());
    return out.toString();
  }

  private static Request build(String base, Map<String, String> fields) {
    Request request = new Request(Code.valueOf(fields.getOrDefault("method", "GET")));
    request.setType("NON".equals(fields.get("type")) ? Type.NON : Type.CON);
    request.setURI(base + fields.get("path"));
    OptionSet options = request.getOptions();
    if (fields.containsKey("size"))
      request.setPayload(pattern(Integer.parseInt(fields.get("size")), Integer.parseInt(fields.getOrDefault("seed", "0"))));
    if (fields.containsKey("etag")) options.addETag(unhex(fields.get("etag")));
    if (fields.containsKey("ifmatch")) options.addIfMatch(unhex(fields.get("ifmatch")));
    if (fields.containsKey("ifnonematch")) options.setIfNoneMatch(true);
    if (fields.containsKey("accept")) options.setAccept(Integer.parseInt(fields.get("accept")));
    if (fields.containsKey("format")) options.setContentFormat(Integer.parseInt(fields.get("format")));
    if (fields.containsKey("critical")) {
      int number = Integer.parseInt(fields.get("critical"));
      options.addOtherOption(new Option(new OpaqueOptionDefinition(number, "Unknown"), new byte[] {'x'}));
    }
    return request;
  }

  private static String request(CoapClient client, Request request) throws Exception {
    CoapResponse response = client.advanced(request);
    if (response == null) return "\"error\":\"no answer\"";
    return outcome(response.advanced());
  }

  private static String observe(CoapClient client, Request request, Map<String, String> fields) throws Exception {
    int wanted = Integer.parseInt(fields.getOrDefault("count", "1"));
    List<String> found = new ArrayList<>();
    CountDownLatch enough = new CountDownLatch(wanted);
    request.setObserve();
    CoapObserveRelation relation =
        client.observe(
            request,
            new CoapHandler() {
              @Override
              public synchronized void onLoad(CoapResponse response) {
                if (enough.getCount() == 0) return;
                found.add("{" + outcome(response.advanced()) + ",\"observe\":" + response.getOptions().hasObserve() + "}");
                enough.countDown();
              }

              @Override
              public void onError() {}
            });
    boolean all = enough.await(PATIENCE_MS, TimeUnit.MILLISECONDS);
    if ("rst".equals(fields.get("cancel"))) relation.reactiveCancel();
    else relation.proactiveCancel();
    if (!all) return "\"error\":\"" + (wanted - enough.getCount()) + " of " + wanted + " notifications\"";
    return "\"notifications\":[" + String.join(",", found) + "]";
  }

  private static void client(Configuration configuration, String host, int port) throws Exception {
    CoapEndpoint endpoint = new CoapEndpoint.Builder().setConfiguration(configuration).build();
    endpoint.start();
    CoapClient client = new CoapClient();
    client.setEndpoint(endpoint);
    client.setTimeout(PATIENCE_MS);
    String base = "coap://" + (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] words = line.trim().split(" +");
      Map<String, String> fields = new HashMap<>();
      for (int i = 1; i < words.length; i++) {
        int at = words[i].indexOf('=');
        fields.put(words[i].substring(0, at), words[i].substring(at + 1));
      }
      String result;
      try {
        Request request = build(base, fields);
        result = words[0].equals("observe") ? observe(client, request, fields) : request(client, request);
      } catch (Exception error) {
        result = "\"error\":\"" + error.toString().replace('"', '\'') + "\"";
      }
      System.out.println("{\"id\":" + fields.get("id") + "," + result + "}");
    }
    client.shutdown();
    endpoint.destroy();
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 3 || !(args[0].equals("server") || args[0].equals("client"))) {
      System.err.println("usage: Peer server|client HOST PORT");
      System.exit(2);
    }
    CoapConfig.register();
    UdpConfig.register();
    Configuration configuration = Configuration.createStandardWithoutFile();
    configuration.set(CoapConfig.MAX_RESOURCE_BODY_SIZE, 65536);
    int port = Integer.parseInt(args[2]);
    if (args[0].equals("server")) server(configuration, args[1], port);
    else client(configuration, args[1], port);
    System.exit(0);
  }
}
