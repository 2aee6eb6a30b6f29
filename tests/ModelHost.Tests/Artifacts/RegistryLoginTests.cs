using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Docker;

namespace ModelHost.Tests.Artifacts;

/// <summary>Logins of registries go to their registry, and to nobody else.</summary>
public sealed class RegistryLoginTests : IDisposable
{
    private const string User = "robot$lab", Password = "päss:w0rd s3cret";

    private readonly TestNode _surroundings = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public async Task Backend_is_unpacked_from_a_registry_with_the_nodes_login(bool wantsToken, bool isFile)
    {
        await using var registry = await RegistryAsync(wantsToken);
        var login = new NodeRegistry { Host = registry.Host.ToUpperInvariant(), Username = User };
        if (isFile)
            login.PasswordFile = FileWith(Password + "\n");
        else
            login.Password = Password;
        await using var node = await OpenAsync(registry, login);

        var pull = await Pulls.DoAsync(node, From(registry));

        (pull.Phase, pull.Error).ShouldBe((PullPhase.Done, ""));
        var sent = registry.Files.Requests.Select(asked => asked.Authorization).Where(one => one.Length > 0).Distinct().ToArray();
        sent.Length.ShouldBe(wantsToken ? 2 : 1);
        sent.Count(one => one == Basic(Password)).ShouldBe(1);
        if (wantsToken)
            registry.Files.Requests.Where(asked => asked.Authorization == Basic(Password)).ShouldAllBe(asked => asked.Path.StartsWith("/token?", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Wrong_login_and_none_are_failures_that_say_so_and_the_file_is_read_anew(bool wantsToken)
    {
        await using var registry = await RegistryAsync(wantsToken);
        var file = FileWith("another s3cret");
        Pull without;
        await using (var none = await OpenAsync(registry))
            without = await Pulls.DoAsync(none, From(registry));
        await using var node = await OpenAsync(registry, new NodeRegistry { Host = registry.Host, Username = User, PasswordFile = file });
        var wrong = await Pulls.DoAsync(node, From(registry));
        File.Delete(file);
        var gone = await Pulls.DoAsync(node, From(registry));
        await File.WriteAllTextAsync(file, Password, Ct);
        var right = await Pulls.DoAsync(node, From(registry));

        (without.Phase, without.ErrorCode).ShouldBe((PullPhase.Failed, "access_denied"));
        (wrong.Phase, wrong.ErrorCode).ShouldBe((PullPhase.Failed, "access_denied"));
        wrong.Error.ShouldStartWith($"{registry.Host} does not let the login read team/backend that the node has for it (Node:Registries): ");
        (wrong.Error + gone.Error).ShouldNotContain("s3cret");
        gone.Error.ShouldBe($"the file with the password for the registry {registry.Host} (Node:Registries) cannot be read, or holds none");
        (right.Phase, right.Error).ShouldBe((PullPhase.Done, ""));
    }

    [Fact]
    public async Task Models_of_an_ollama_registry_come_with_its_login()
    {
        await using var registry = await ImageServer.StartAsync(wantsToken: true, login: $"{User}:{Password}");
        registry.Push("library/gemma", "2b", ("application/vnd.ollama.image.model", FileServer.Bytes(1000)));
        await using var node = await OpenAsync(registry, Login(registry.Host));

        (await Pulls.DoAsync(node, Pulls.Model("m", Pulls.From("ollama://gemma:2b")))).Error.ShouldBe("");
    }

    [Fact]
    public async Task Layers_at_another_host_are_fetched_without_it()
    {
        await using var registry = await RegistryAsync(wantsToken: false);
        await using var storage = await FileServer.StartAsync();
        var layer = Archives.Tar(Archives.File("run.sh", "#!/bin/sh\n"));
        registry.Push("team/backend", "v1", layer);
        registry.BlobOf("team/backend", layer).RedirectTo = storage.Url("/blob?signature=x");
        storage.Put("/blob?signature=x", layer);
        await using var node = await OpenAsync(registry, Login(registry.Host));

        var pull = await Pulls.DoAsync(node, From(registry));

        (pull.Phase, pull.Error).ShouldBe((PullPhase.Done, ""));
        storage.Requests.ShouldHaveSingleItem().Authorization.ShouldBe("");
    }

    [Fact]
    public async Task Host_that_is_redirected_to_does_not_get_it_by_asking_for_it()
    {
        await using var registry = await ImageServer.StartAsync();
        await using var other = await RegistryAsync(wantsToken: false);
        registry.Files.Put("/v2/team/backend/manifests/v1", []).RedirectTo = other.Files.Url("/v2/team/backend/manifests/v1");
        await using var node = await OpenAsync(registry, Login(registry.Host));

        var pull = await Pulls.DoAsync(node, From(registry));

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "access_denied"));
        other.Files.Requests.ShouldAllBe(asked => asked.Authorization == "");
        registry.Files.Requests.ShouldAllBe(asked => asked.Authorization == "");
    }

    [Fact]
    public async Task Registry_of_another_name_or_port_does_not_get_it()
    {
        await using var registry = await RegistryAsync(wantsToken: false);
        await using var other = await ImageServer.StartAsync();
        // one that sends the node on to the registry of the login gets nothing from there either
        other.Files.Put("/v2/team/backend/manifests/v1", []).RedirectTo = registry.Files.Url("/v2/team/backend/manifests/v1");
        await using var node = await OpenAsync(registry, also: other.Host, Login(registry.Host));

        var name = await Pulls.DoAsync(node, Pulls.Backend("b", Pulls.From($"oci://localhost:{registry.Files.Address.Port}/team/backend:v1")));
        var redirected = await Pulls.DoAsync(node, Pulls.Backend("b", Pulls.From($"oci://{other.Host}/team/backend:v1")));

        (name.ErrorCode, redirected.ErrorCode).ShouldBe(("access_denied", "access_denied"));
        registry.Files.Requests.Concat(other.Files.Requests).ShouldAllBe(asked => asked.Authorization == "");
    }

    [Theory]
    [InlineData("https://registry.example/v2/", "https://auth.example/token", true)]
    [InlineData("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/token", true)]
    [InlineData("http://127.0.0.1:5000/v2/", "https://auth.example/token", true)]
    [InlineData("http://127.0.0.1:5000/v2/", "http://auth.example/token", false)]
    [InlineData("http://registry.example/v2/", "https://auth.example/token", false)]
    [InlineData("http://registry.example/v2/", "http://registry.example/v2/", false)]
    [InlineData("https://registry.example/v2/", "http://auth.example/token", false)]
    public void Login_is_told_over_tls_or_on_this_machine_alone(string registry, string realm, bool isTold) => RegistryLogin.IsTold(new Uri(registry), new Uri(realm)).ShouldBe(isTold);

    [Theory]
    [InlineData("docker.io", true)]
    [InlineData("index.docker.io", true)]
    [InlineData("registry-1.docker.io", true)]
    [InlineData("Registry.example:5000", true)]
    [InlineData("registry.example", false)]
    [InlineData("registry.example:443", false)]
    [InlineData("evil.registry.example:5000", false)]
    [InlineData("auth.docker.io", false)]
    public void Login_is_found_by_its_registry(string registry, bool isKnown)
    {
        var logins = new RegistryLogins([Login("docker.io"), Login("registry.example:5000")]);

        (logins.Of(registry) is not null).ShouldBe(isKnown);
    }

    [Theory]
    [InlineData("127.0.0.1:5000/team/engine", "127.0.0.1:5000", "127.0.0.1:5000")]
    [InlineData("team/engine", "docker.io", "https://index.docker.io/v1/")]
    [InlineData("127.0.0.1:5001/team/engine", "127.0.0.1:5000", null)]
    [InlineData("team/engine", "registry.example", null)]
    public async Task Container_engine_gets_the_login_of_the_images_registry_with_the_pull(string repository, string host, string? server)
    {
        var heard = new List<string>();
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            var path = context.Request.Path.Value!;
            context.Response.ContentType = "application/json";
            if (path.EndsWith("/images/create", StringComparison.Ordinal))
                heard.Add(context.Request.Headers["X-Registry-Auth"].ToString());
            await context.Response.WriteAsync(path.EndsWith("/images/json", StringComparison.Ordinal) || path.EndsWith("/containers/json", StringComparison.Ordinal) ? "[]"
                : path.EndsWith("/json", StringComparison.Ordinal) ? """{"Id":"sha256:1","RepoTags":[],"RepoDigests":[]}""" : "{}");
        });
        var options = new NodeOptions { DockerHost = engine.Endpoint.OriginalString, NvidiaSmi = _surroundings.NvidiaSmi };
        options.Registries.Add(Login(host));
        await using var node = new LocalNode(new NodeIdentity("cluster", "node", _surroundings.Data), options, Pulls.Options(), TimeProvider.System, NullLoggerFactory.Instance);
        await node.OpenAsync(Ct);

        var pull = await Pulls.DoAsync(node, new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = $"{repository}:v1" });

        (pull.Phase, pull.Error).ShouldBe((PullPhase.Done, ""));
        var header = heard.ShouldHaveSingleItem();
        if (server is null)
        {
            header.ShouldBe("");
            return;
        }
        header.ShouldAllBe(c => char.IsAsciiLetterOrDigit(c) || c == '-' || c == '_' || c == '=');
        var said = JsonSerializer.Deserialize<JsonElement>(Convert.FromBase64String(header.Replace('-', '+').Replace('_', '/')));
        (said.GetProperty("username").GetString(), said.GetProperty("password").GetString(), said.GetProperty("serveraddress").GetString()).ShouldBe((User, Password, server));
    }

    [Theory]
    [InlineData("has a Host that is not HOST[:PORT]", "Host=https://registry.example", "Username=u", "Password=s3cret")]
    [InlineData("has a Host that is not HOST[:PORT]", "Host=registry", "Username=u", "Password=s3cret")]
    [InlineData("has a Host that is not HOST[:PORT]", "Host=registry.example/team", "Username=u", "Password=s3cret")]
    [InlineData("has a Host that is not HOST[:PORT]", "Username=u", "Password=s3cret")]
    [InlineData("needs a Username, without a colon", "Host=registry.example", "Password=s3cret")]
    [InlineData("needs a Username, without a colon", "Host=registry.example", "Username=u:s3cret", "Password=p")]
    [InlineData("needs a Password or a PasswordFile, and not both", "Host=registry.example", "Username=u")]
    [InlineData("needs a Password or a PasswordFile, and not both", "Host=registry.example", "Username=u", "Password=s3cret", "PasswordFile=/etc/hostname")]
    [InlineData("has a PasswordFile that cannot be read, or holds no password", "Host=registry.example", "Username=u", "PasswordFile=/no/such/file")]
    [InlineData("has a PasswordFile that cannot be read, or holds no password", "Host=registry.example", "Username=u", "PasswordFile=/etc/passwd")]
    public async Task Login_that_cannot_be_used_is_refused_at_start(string why, params string[] settings)
    {
        var refusal = await Should.ThrowAsync<OptionsValidationException>(ControlPlane.StartAsync(configuration: [.. settings.Select(setting => $"Node:Registries:0:{setting}")]));

        refusal.Message.ShouldContain($"Node:Registries:0 {why}");
        refusal.Message.ShouldNotContain("s3cret");
    }

    [Fact]
    public async Task Two_logins_of_one_registry_are_refused_at_start()
    {
        string[] settings = ["0:Host=docker.io", "0:Username=a", "0:Password=s3cret", "1:Host=Index.Docker.io", "1:Username=b", "1:Password=s3cret"];

        var refusal = await Should.ThrowAsync<OptionsValidationException>(ControlPlane.StartAsync(configuration: [.. settings.Select(setting => $"Node:Registries:{setting}")]));

        refusal.Message.ShouldContain("Node:Registries:1 has the Host of another one");
    }

    public void Dispose() => _surroundings.Dispose();

    private static string Basic(string password) => "Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes($"{User}:{password}"));

    private static NodeRegistry Login(string host) => new() { Host = host, Username = User, Password = Password };

    private static PullRequest From(ImageServer registry) => Pulls.Backend("b", Pulls.From($"oci://{registry.Host}/team/backend:v1"));

    private static async Task<ImageServer> RegistryAsync(bool wantsToken)
    {
        var registry = await ImageServer.StartAsync(wantsToken, $"{User}:{Password}");
        registry.Push("team/backend", "v1", Archives.Tar(Archives.File("run.sh", "#!/bin/sh\n")));
        return registry;
    }

    private string FileWith(string text)
    {
        var path = Path.Combine(_surroundings.Data, "password");
        File.WriteAllText(path, text);
        return path;
    }

    private Task<LocalNode> OpenAsync(ImageServer registry, params NodeRegistry[] logins) => OpenAsync(registry, also: registry.Host, logins);

    private async Task<LocalNode> OpenAsync(ImageServer registry, string also, params NodeRegistry[] logins)
    {
        var downloads = Pulls.Options();
        (downloads.InsecureRegistries, downloads.OllamaUrl) = ($"{registry.Host},{also},localhost:{registry.Files.Address.Port}", registry.Files.Address.AbsoluteUri);
        var options = new NodeOptions { DockerHost = _surroundings.DockerHost, NvidiaSmi = _surroundings.NvidiaSmi };
        foreach (var login in logins)
            options.Registries.Add(login);
        var node = new LocalNode(new NodeIdentity("cluster", "node", _surroundings.Data), options, downloads, TimeProvider.System, NullLoggerFactory.Instance);
        await node.OpenAsync(Ct);
        return node;
    }
}
