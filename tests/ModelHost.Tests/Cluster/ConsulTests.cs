using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Cluster;

/// <summary>Nodes found in Consul: who is one is for its certificate to say, and Consul itself can be in any state.</summary>
public sealed class ConsulTests
{
    private static readonly string[] s_quick = ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1", "Discovery:Consul:Wait=00:00:02"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Node_whose_heartbeats_do_not_come_is_found_in_Consul_and_registered_by_its_certificate()
    {
        await using var consul = await ConsulStandIn.StartAsync();
        await using var cluster = await TestCluster.StartAsync(configuration: [.. s_quick, $"Discovery:Consul:Address={consul.Url}"]);
        var token = await cluster.TokenAsync();
        await using var way = new NetworkRelay(cluster.Join);
        await using var agent = await NodeAgent.StartAsync(way.Host, token, name: "gpu-1", time: cluster.Clock);
        await cluster.StatusAsync("gpu-1", "online");
        await way.RefuseAsync();
        // a heartbeat that was on its way may have registered it again: no further one comes
        await Deadline.UntilAsync(async () =>
        {
            if (await cluster.NodeAsync("gpu-1") is { } known)
                await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{known.Id()}", UriKind.Relative), Ct);
            return await cluster.DiscoveredAsync("gpu-1");
        }, found => found?.Text("status") == "joined", what: "the node to be removed");

        consul.Register("rack-3", "192.0.2.1", agent.Url.Port, "modelhost-node-1", serviceAddress: "127.0.0.1");
        // registered, and looked at
        var node = await Deadline.UntilAsync(() => cluster.NodeAsync("gpu-1"), found => found?.GetProperty("status").GetString() is "online" or "degraded", what: "the node to be registered");
        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node!.Value.Id()));
        await cluster.Host.Client.StatusAsync(id, "running");
        await cluster.Host.Client.StopModelAsync(id);

        node.Value.Text("ip_address").ShouldBe("127.0.0.1");
        (await cluster.DiscoveredAsync("gpu-1")).ShouldBeNull();
        (await cluster.DiscoveredAsync("rack-3")).ShouldBeNull();
        await cluster.StatusAsync("gpu-1", "degraded"); // it answers, and cannot report or renew

        await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{node.Value.Id()}", UriKind.Relative), Ct);
        await Deadline.UntilAsync(() => cluster.NodeAsync("gpu-1"), found => found is not null, what: "the node to be registered again");
        var asked = consul.Asked.Count;
        consul.Deregister("rack-3");
        // the question that was waiting, if one was, and one after its answer was read
        await Deadline.UntilAsync(() => consul.Asked.Count >= asked + 2, what: "Consul to be asked again");
        (await cluster.NodeAsync("gpu-1")).ShouldNotBeNull();
    }

    [Fact]
    public async Task Strangers_are_listed_with_the_reason_and_are_told_nothing()
    {
        await using var consul = await ConsulStandIn.StartAsync();
        await using var cluster = await TestCluster.StartAsync(configuration: [.. s_quick, $"Discovery:Consul:Address={consul.Url}"]);
        await using var other = await TestCluster.StartAsync();
        await using var foreigner = await other.AgentAsync("gpu-9");
        await cluster.TokenAsync();
        var asked = 0;
        await using var web = await StartWebAsync(() => asked++);
        consul.Register("foreign", "127.0.0.1", foreigner.Url.Port);
        consul.Register("web", "127.0.0.1", new Uri(web.Urls.First()).Port);
        consul.Register("nobody", "127.0.0.1", TestPorts.Free());
        consul.Register("portless", "127.0.0.1", 0);
        consul.Register("odd", "../etc\u0007/passwd", 80, "a\nb");
        consul.Register("control-plane", "127.0.0.1", int.Parse(cluster.Join.Split(':')[1], System.Globalization.CultureInfo.InvariantCulture));

        var nodes = await Deadline.UntilAsync(() => cluster.DiscoveredAsync(),
            found => found.Length == 6 && !found.Any(node => node.Text("status_detail")!.Contains("not been asked", StringComparison.Ordinal)), what: "all to be asked");

        nodes.ShouldAllBe(node => node.Text("status") == "found" && node.GetProperty("node_uid").ValueKind == JsonValueKind.Null);
        string Detail(string name) => nodes.Single(node => node.Text("node") == name).Text("status_detail")!;
        Detail("foreign").ShouldContain("not of this cluster");
        Detail("control-plane").ShouldContain("a Node is wanted");
        Detail("portless").ShouldContain("no host with a port");
        Detail("odd").ShouldContain("no host with a port");
        Detail("web").ShouldStartWith("It does not answer as a node");
        Detail("nobody").ShouldContain("refused");
        nodes.Single(node => node.Text("node") == "odd").Text("service_id").ShouldBe("ab");
        (await cluster.Host.Client.JsonAsync("/api/nodes")).GetArrayLength().ShouldBe(1); // its own
        asked.ShouldBe(0);
    }

    [Fact]
    public async Task Revoked_node_in_Consul_is_one_entry_and_registers_when_it_is_let_in()
    {
        await using var consul = await ConsulStandIn.StartAsync();
        await using var cluster = await TestCluster.StartAsync(configuration: [.. s_quick, $"Discovery:Consul:Address={consul.Url}"]);
        await using var agent = await cluster.AgentAsync();
        var node = await cluster.StatusAsync("gpu-1", "online");
        consul.Register("rack-3", "127.0.0.1", agent.Url.Port);

        await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{node}?revoke=true", UriKind.Relative), Ct);
        var only = await Deadline.UntilAsync(() => cluster.DiscoveredAsync(), found => found is [var one] && one.GetProperty("port").ValueKind == JsonValueKind.Number);
        using var admitted = await cluster.Host.Client.PostAsync(new Uri($"/api/nodes/discovered/{agent.Uid}/admit", UriKind.Relative), null, Ct);

        (only[0].Text("node"), only[0].Text("status"), only[0].GetProperty("port").GetInt32()).ShouldBe(("gpu-1", "revoked", agent.Url.Port));
        await cluster.StatusAsync("gpu-1", "online");
        (await cluster.DiscoveredAsync()).ShouldBeEmpty();
    }

    [Theory]
    [InlineData("answers 500", "it answered 500")]
    [InlineData("sends garbage", "no list of services")]
    [InlineData("sends another JSON", "no list of services")]
    [InlineData("sends entries of another form", "no list of services")]
    [InlineData("redirects", "it answered 302")]
    [InlineData("closes", "cannot be read")]
    [InlineData("hangs", "did not answer in time")]
    [InlineData("sends a gigabyte", "larger than 4 MiB")]
    public async Task Consul_that_fails_takes_no_node_away_and_is_asked_again(string misdeed, string reason)
    {
        await using var consul = await ConsulStandIn.StartAsync();
        await using var cluster = await TestCluster.StartAsync(configuration: [.. s_quick, $"Discovery:Consul:Address={consul.Url}"]);
        await using var agent = await cluster.AgentAsync();
        await cluster.StatusAsync("gpu-1", "online");
        consul.Register("rack-3", "127.0.0.1", agent.Url.Port);
        consul.Register("nobody", "127.0.0.1", TestPorts.Free());
        await Deadline.UntilAsync(() => cluster.DiscoveredAsync(), found => found.Length == 1);

        consul.Misdeed = misdeed;
        var error = await Deadline.UntilAsync(() => cluster.ConsulErrorAsync(), told => told?.Contains(reason, StringComparison.Ordinal) is true, 60, "Consul's failure to be told");
        var unread = await cluster.DiscoveredAsync();
        await cluster.StatusAsync("gpu-1", "online");
        consul.Misdeed = "";
        consul.Register("late", "127.0.0.1", TestPorts.Free());
        await Deadline.UntilAsync(() => cluster.DiscoveredAsync(), found => found.Length == 2, 60, "Consul to be read again");

        error.ShouldNotBeNull();
        unread.ShouldHaveSingleItem().Text("node").ShouldBe("nobody");
        await Deadline.UntilAsync(cluster.ConsulErrorAsync, told => told is null, 60, "Consul to be told as read");
        await cluster.StatusAsync("gpu-1", "online");
    }

    [Fact]
    public async Task Consul_is_asked_once_and_answers_when_something_changes()
    {
        await using var consul = await ConsulStandIn.StartAsync();
        await using var cluster = await TestCluster.StartAsync(configuration: [$"Discovery:Consul:Address={consul.Url}", "Discovery:Consul:Wait=00:10:00", "Discovery:Consul:Datacenter=dc 1"]);
        await Deadline.UntilAsync(() => consul.Asked.Count == 2, what: "the question that waits");

        consul.Register("one", "127.0.0.1", TestPorts.Free());
        await Deadline.UntilAsync(() => cluster.DiscoveredAsync(), found => found.Length == 1);
        await Deadline.UntilAsync(() => consul.Asked.Count == 3, what: "the next question that waits");
        consul.Restore();
        await Deadline.UntilAsync(() => consul.Asked.Count >= 5, what: "a question without an index and one with the new one");

        consul.Asked.Take(5).ShouldBe([
            "/v1/catalog/service/modelhost-node?dc=dc%201", "/v1/catalog/service/modelhost-node?dc=dc%201&index=41&wait=600s",
            "/v1/catalog/service/modelhost-node?dc=dc%201&index=42&wait=600s", "/v1/catalog/service/modelhost-node?dc=dc%201", "/v1/catalog/service/modelhost-node?dc=dc%201&index=3&wait=600s"]);
    }

    [Fact]
    public async Task Token_goes_to_Consul_over_TLS_of_its_authority_and_nowhere_else()
    {
        const string Token = "b1gs33cr3t-0000-1111-2222-333344445555";
        using var surroundings = new TestNode();
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=server.dc1.consul", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddIpAddress(IPAddress.Loopback);
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: false, 0, critical: true));
        using var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        var authority = Path.Combine(surroundings.Data, "consul.pem");
        await using var consul = await ConsulStandIn.StartAsync(certificate, Token);
        consul.Register("nobody", "127.0.0.1", TestPorts.Free());
        var log = new LogLines();
        var texts = new List<string>();

        await using (var host = await StartAsync($"Discovery:Consul:Token={Token}"))
            (await ErrorAsync(host)).ShouldContain("certificate");
        consul.Asked.ShouldBeEmpty("who does not show the right certificate is told no token");
        await using (var host = await StartAsync($"Discovery:Consul:Token={Token}", $"Discovery:Consul:CaFile={authority}"))
            (await ErrorAsync(host)).ShouldContain("cannot be read");
        File.WriteAllText(authority, certificate.ExportCertificatePem());
        await using (var host = await StartAsync($"Discovery:Consul:Token=other-{Token}", $"Discovery:Consul:CaFile={authority}"))
            (await ErrorAsync(host)).ShouldContain("it answered 403: the token (Discovery:Consul:Token)");
        await using (var host = await StartAsync($"Discovery:Consul:CaFile={authority}"))
            (await ErrorAsync(host)).ShouldContain("leaves out what the token");
        await using (var host = await StartAsync($"Discovery:Consul:Token={Token}", $"Discovery:Consul:CaFile={authority}"))
        {
            var found = await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/nodes/discovered"), found => found.GetProperty("nodes").GetArrayLength() == 1);
            texts.Add(found.GetRawText());
            found.GetProperty("consul_error").ValueKind.ShouldBe(JsonValueKind.Null);
        }

        texts.Count.ShouldBe(5);
        texts.Concat(log.All).ShouldAllBe(text => !text.Contains(Token));
        async Task<string> ErrorAsync(ControlPlane host)
        {
            var answer = await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/nodes/discovered"), found => found.GetProperty("consul_error").ValueKind == JsonValueKind.String);
            texts.Add(answer.GetRawText());
            return answer.Text("consul_error")!;
        }
        Task<ControlPlane> StartAsync(params string[] configuration) => ControlPlane.StartAsync(surroundings,
            configure: services => services.AddSingleton<ILoggerProvider>(log), configuration: [$"Discovery:Consul:Address={consul.Url}", .. configuration]);
    }

    [Theory]
    [InlineData("Address", "consul:8500", "Discovery:Consul:Address=consul:8500: an address of Consul is http or https")]
    [InlineData("Address", "http://me:s3cret@consul:8500", "Discovery:Consul:Address=********@consul:8500")]
    [InlineData("Address", "http://consul:8500/v1?x=y", "Discovery:Consul:Address=")]
    [InlineData("Token", "s3cret\nX-Other: 1", "Discovery:Consul:Token: a token is up to 4096 visible ASCII characters")]
    [InlineData("Wait", "00:20:00", "Discovery:Consul:Wait=")]
    [InlineData("Service", "", "Discovery:Consul:Service=")]
    public async Task Configuration_that_cannot_be_is_refused_at_start_without_secrets(string name, string value, string message)
    {
        var refused = await Should.ThrowAsync<OptionsValidationException>(() => ControlPlane.StartAsync(configuration: [$"Discovery:Consul:{name}={value}"]));

        refused.Message.ShouldContain(message);
        refused.Message.ShouldNotContain("s3cret");
    }

    private static async Task<WebApplication> StartWebAsync(Action asked)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        var app = builder.Build();
        app.Run(_ =>
        {
            asked();
            return Task.CompletedTask;
        });
        await app.StartAsync();
        return app;
    }
}
