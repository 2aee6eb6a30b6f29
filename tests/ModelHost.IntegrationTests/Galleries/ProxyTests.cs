using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using ModelHost.IntegrationTests.Lifecycle;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>A site whose only way out is a proxy: galleries, scans, models and registries come through it by TLS.</summary>
public sealed class ProxyTests
{
    private static readonly string[] s_hosts = ["gallery.example", "models.example", "cdn.example", "hub.example"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Everything_is_downloaded_through_the_proxy_of_the_configuration_and_nothing_through_that_of_the_environment()
    {
        using var certificate = Certificate();
        await using var server = await FileServer.StartAsync(certificate);
        await using var proxy = new ConnectProxy { Login = "lab:s3cret" };
        await using var decoy = new ConnectProxy();
        using var node = new TestNode();
        // this machine is no allowed network: what is reached here was reached by the proxy
        node.Downloads = ["Downloads:RetryDelay=00:00:00.010", $"Downloads:Proxy=http://lab:s3cret@{proxy.Host}", "Downloads:HuggingFaceUrl=https://hub.example"];
        foreach (var host in s_hosts)
            proxy.Lead($"{host}:443", server.Address);
        var trusted = Path.Combine(node.Data, "ca.pem");
        await File.WriteAllTextAsync(trusted, certificate.ExportCertificatePem(), Ct);
        var weights = server.Put("/blob", FileServer.Bytes(300_000));
        server.Put("/w.gguf", []).RedirectTo = "https://cdn.example/blob";
        server.Put("/evil.gguf", []).RedirectTo = $"https://127.0.0.1:{server.Address.Port}/blob";
        server.Put("/api/models/o/r/scan", "{}"u8.ToArray());
        var hub = server.Put("/o/r/resolve/main/f.gguf", FileServer.Bytes(200_000, 2));
        server.Put("/index.yaml", Encoding.UTF8.GetBytes($$"""
            - {name: tiny, config_file: {backend: simulator}, files: [{filename: w.gguf, uri: 'https://models.example/w.gguf', sha256: {{weights.Sha256}}}, {filename: f.gguf, uri: 'hf://o/r/f.gguf', sha256: {{hub.Sha256}}}]}
            - {name: evil, config_file: {backend: simulator}, files: [{filename: w.gguf, uri: 'https://models.example/evil.gguf'}]}
            """));
        var environment = new Dictionary<string, string> { ["SSL_CERT_FILE"] = trusted };
        foreach (var name in (string[])["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"])
            environment[name] = $"http://{decoy.Host}";
        await using var process = await ModelHostProcess.ServeAsync(node, 0, environment, "Galleries:Models:0:Name=own", "Galleries:Models:0:Url=https://gallery.example/index.yaml", "Logging:LogLevel:Default=Debug");
        using var client = new HttpClient(new SocketsHttpHandler { UseProxy = false }) { BaseAddress = process.Url };
        await client.NodeAsync("process");

        var done = await ApplyAsync(client, "tiny");
        var failed = await ApplyAsync(client, "evil");

        done.Text("message").ShouldBe("completed", $"{done}\n{string.Join('\n', process.Output)}");
        foreach (var (name, file) in new[] { ("w.gguf", weights), ("f.gguf", hub) })
            Convert.ToHexStringLower(SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(node.Data, "models", "tiny", name), Ct))).ShouldBe(file.Sha256);
        failed.Text("error").ShouldContain("127.0.0.1 leads to no public address");
        proxy.Requests.Where(asked => asked.Authorization.Length > 0).Select(asked => asked.Line.Split(' ')[1]).Distinct().Order().ShouldBe(s_hosts.Select(host => $"{host}:443").Order());
        proxy.Requests.ShouldAllBe(asked => asked.Line.StartsWith("CONNECT ", StringComparison.Ordinal));
        server.Requests.ShouldContain(asked => asked.Path == "/api/models/o/r/scan");
        decoy.Requests.ShouldBeEmpty();
        string.Join('\n', process.Output).ShouldNotContain("s3cret");
    }

    private static async Task<JsonElement> ApplyAsync(HttpClient client, string name)
    {
        using var applied = await client.PostAsJsonAsync("/models/apply", new { id = $"own@{name}" }, Ct);
        var body = await applied.Content.ReadAsStringAsync(Ct);
        applied.IsSuccessStatusCode.ShouldBeTrue(body);
        var uuid = JsonSerializer.Deserialize<JsonElement>(body).Text("uuid");
        return await Deadline.UntilAsync(() => client.JsonAsync($"/models/jobs/{uuid}"), job => job.GetProperty("processed").GetBoolean(), 60, $"{name} to be installed");
    }

    /// <summary>A certificate for all the hosts, which is its own authority.</summary>
    private static X509Certificate2 Certificate()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=tests", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        foreach (var host in s_hosts)
            names.AddDnsName(host);
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        using var made = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddHours(-1), DateTimeOffset.UtcNow.AddHours(1));
        return X509CertificateLoader.LoadPkcs12(made.Export(X509ContentType.Pkcs12), null);
    }
}
