import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.eclipse.californium.elements.AddressEndpointContext;
import org.eclipse.californium.elements.DtlsEndpointContext;
import org.eclipse.californium.elements.MessageCallback;
import org.eclipse.californium.elements.RawData;
import org.eclipse.californium.elements.EndpointContext;
import org.eclipse.californium.elements.config.CertificateAuthenticationMode;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.elements.util.SslContextUtil;
import org.eclipse.californium.scandium.DTLSConnector;
import org.eclipse.californium.scandium.config.DtlsConfig;
import org.eclipse.californium.scandium.config.DtlsConfig.DtlsRole;
import org.eclipse.californium.scandium.config.DtlsConnectorConfig;
import org.eclipse.californium.scandium.dtls.cipher.CipherSuite;
import org.eclipse.californium.scandium.dtls.CertificateType;
import org.eclipse.californium.scandium.dtls.x509.SingleCertificateProvider;
import org.eclipse.californium.scandium.dtls.x509.StaticNewAdvancedCertificateVerifier;

/**
 * A DTLS 1.2 server and client on Scandium, for the interop suite and for benches.
 *
 * <pre>
 * ScandiumPeer server HOST PORT [-cred FILE] -ca FILE [-auth none|optional|require]   echoes until standard input ends
 * ScandiumPeer client HOST PORT [-cred FILE] -ca FILE                                 sends "hello", prints a JSON line
 * </pre>
 *
 * A credentials file holds the private key and the certificate chain, PEM.
 */
public final class ScandiumPeer {
  private ScandiumPeer() {}

  private static DTLSConnector connector(boolean server, InetSocketAddress address, Map<String, String> flags)
      throws Exception {
    Configuration configuration = Configuration.createStandardWithoutFile();
    configuration.set(DtlsConfig.DTLS_ROLE, server ? DtlsRole.SERVER_ONLY : DtlsRole.CLIENT_ONLY);
    configuration.setAsList(
        DtlsConfig.DTLS_CIPHER_SUITES,
        CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    if (server) {
      configuration.set(
          DtlsConfig.DTLS_CLIENT_AUTHENTICATION_MODE,
          switch (flags.getOrDefault("-auth", "none")) {
            case "require" -> CertificateAuthenticationMode.NEEDED;
            case "optional" -> CertificateAuthenticationMode.WANTED;
            default -> CertificateAuthenticationMode.NONE;
          });
    }
    DtlsConnectorConfig.Builder builder = new DtlsConnectorConfig.Builder(configuration);
    if (address != null) builder.setAddress(address);
    if (flags.containsKey("-cred")) {
      SslContextUtil.Credentials own = SslContextUtil.loadCredentials(flags.get("-cred"));
      builder.setCertificateIdentityProvider(
          new SingleCertificateProvider(own.getPrivateKey(), own.getCertificateChain(), CertificateType.X_509));
    }
    if (!server || !flags.getOrDefault("-auth", "none").equals("none")) {
      builder.setAdvancedCertificateVerifier(
          new StaticNewAdvancedCertificateVerifier.Builder()
              .setTrustedCertificates(SslContextUtil.loadTrustedCertificates(flags.get("-ca")))
              .build());
    }
    return new DTLSConnector(builder.build());
  }

  private static void server(InetSocketAddress address, Map<String, String> flags) throws Exception {
    DTLSConnector connector = connector(true, address, flags);
    connector.setRawDataReceiver(
        raw -> connector.send(RawData.outbound(raw.getBytes(), raw.getEndpointContext(), null, false)));
    connector.start();
    System.out.println("{\"ready\":true,\"port\":" + address.getPort() + "}");
    while (System.in.read() >= 0) continue;
    connector.destroy();
  }

  private static void client(InetSocketAddress address, Map<String, String> flags) throws Exception {
    DTLSConnector connector = connector(false, null, flags);
    CountDownLatch done = new CountDownLatch(1);
    AtomicReference<String> result = new AtomicReference<>("\"event\":\"refused\",\"error\":\"no answer\"");
    connector.setRawDataReceiver(
        raw -> {
          String echo = new String(raw.getBytes(), StandardCharsets.US_ASCII);
          String cipher = raw.getEndpointContext().getString(DtlsEndpointContext.KEY_CIPHER);
          result.set("\"event\":\"association\",\"echo\":\"" + echo + "\",\"cipher\":\"" + cipher + "\"");
          done.countDown();
        });
    connector.start();
    connector.send(
        RawData.outbound(
            "hello".getBytes(StandardCharsets.US_ASCII),
            new AddressEndpointContext(address),
            new MessageCallback() {
              @Override
              public void onConnecting() {}

              @Override
              public void onDtlsRetransmission(int flight) {}

              @Override
              public void onContextEstablished(EndpointContext context) {}

              @Override
              public void onSent() {}

              @Override
              public void onError(Throwable error) {
                result.set("\"event\":\"refused\",\"error\":\"" + error.toString().replace('"', '\'') + "\"");
                done.countDown();
              }
            },
            false));
    done.await(10, TimeUnit.SECONDS);
    System.out.println("{" + result.get() + "}");
    connector.destroy();
  }

  public static void main(String[] args) throws Exception {
    if (args.length < 5) {
      System.err.println("usage: ScandiumPeer server|client HOST PORT [-cred FILE] -ca FILE [-auth MODE]");
      System.exit(2);
    }
    DtlsConfig.register();
    Map<String, String> flags = new HashMap<>();
    for (int i = 3; i + 1 < args.length; i += 2) flags.put(args[i], args[i + 1]);
    InetSocketAddress address = new InetSocketAddress(InetAddress.getByName(args[1]), Integer.parseInt(args[2]));
    if (args[0].equals("server")) server(address, flags);
    else client(address, flags);
    System.exit(0);
  }
}
