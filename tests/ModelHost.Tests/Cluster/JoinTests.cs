using System.Net;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using ModelHost.Cluster;
using ModelHost.TestKit;

namespace ModelHost.Tests.Cluster;

/// <summary>How machines become members, and what does not make them one.</summary>
public sealed class JoinTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task First_token_opens_the_listener_and_its_node_is_online()
    {
        await using var cluster = await TestCluster.StartAsync();
        cluster.Join.ShouldBe("127.0.0.1:0");
        Directory.Exists(Path.Combine(cluster.Host.Node.Data, "ca")).ShouldBeFalse();

        await using var agent = await cluster.AgentAsync();
        await cluster.StatusAsync("gpu-1", "online");

        var node = await cluster.NodeAsync("gpu-1");
        (node!.Value.GetProperty("ip_address").GetString(), node.Value.GetProperty("port").GetInt32()).ShouldBe(("127.0.0.1", agent.Url.Port));
        var tokens = await cluster.Host.Client.JsonAsync("/api/nodes/join-tokens");
        (tokens[0].GetProperty("status").GetString(), tokens[0].GetProperty("used_by").GetString()).ShouldBe(("used", "gpu-1"));
    }

    [Fact]
    public async Task Keys_and_the_book_can_be_read_by_their_owner_only_and_tokens_stand_nowhere()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync();
        await using (var agent = await NodeAgent.StartAsync(cluster.Join, token))
        {
            File.GetUnixFileMode(Path.Combine(agent.Node.Data, "membership.json")).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
            ShouldNotHave(agent.Node.Data, JoinTicket.Parse(token)!.Secret);
        }

        var ca = Path.Combine(cluster.Host.Node.Data, "ca");
        File.GetUnixFileMode(ca).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Directory.GetFiles(ca).Select(Path.GetFileName).ShouldBe(["ca.crt", "ca.key", "members.json"], ignoreOrder: true);
        Directory.GetFiles(ca).ShouldAllBe(file => File.GetUnixFileMode(file) == (UnixFileMode.UserRead | UnixFileMode.UserWrite));
        ShouldNotHave(cluster.Host.Node.Data, JoinTicket.Parse(token)!.Secret);
        (await cluster.Host.Client.GetStringAsync(new Uri("/api/nodes/join-tokens", UriKind.Relative), Ct)).ShouldNotContain(JoinTicket.Parse(token)!.Secret);
    }

    [Fact]
    public async Task Token_is_used_once_whoever_comes_at_the_same_time()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync();
        using var client = cluster.Client();

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => JoinAsync(client, TestCluster.JoinRequest(token))));

        answers.Count(answer => answer.Status == HttpStatusCode.OK).ShouldBe(1);
        answers.Where(answer => answer.Status != HttpStatusCode.OK).ShouldAllBe(answer => answer.Status == HttpStatusCode.Conflict && answer.Code == "join.token_used");
        (await JoinAsync(client, TestCluster.JoinRequest(token))).Code.ShouldBe("join.token_used");
    }

    [Fact]
    public async Task Token_ends_with_its_time()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync(minutes: 5);
        using var client = cluster.Client();

        cluster.Clock.By = TimeSpan.FromMinutes(5.1);
        var late = await JoinAsync(client, TestCluster.JoinRequest(token));
        var listed = (await cluster.Host.Client.JsonAsync("/api/nodes/join-tokens"))[0].GetProperty("status").GetString();
        cluster.Clock.By = TimeSpan.FromMinutes(4);
        var inTime = await JoinAsync(client, TestCluster.JoinRequest(token));

        (late.Code, listed, inTime.Status).ShouldBe(("join.token_expired", "expired", HttpStatusCode.OK));
    }

    [Fact]
    public async Task Deleted_token_is_unknown()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync();
        var id = (await cluster.Host.Client.JsonAsync("/api/nodes/join-tokens"))[0].GetProperty("id").GetInt32();
        using var client = cluster.Client();

        using var deleted = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/join-tokens/{id}", UriKind.Relative), Ct);
        using var again = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/join-tokens/{id}", UriKind.Relative), Ct);

        (deleted.StatusCode, again.StatusCode).ShouldBe((HttpStatusCode.NoContent, HttpStatusCode.NotFound));
        (await JoinAsync(client, TestCluster.JoinRequest(token))).Code.ShouldBe("join.token_unknown");
    }

    [Fact]
    public async Task Token_for_a_node_serves_no_other()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync("gpu-7");
        using var client = cluster.Client();

        var other = await JoinAsync(client, TestCluster.JoinRequest(token, name: "gpu-8"));
        var own = await JoinAsync(client, TestCluster.JoinRequest(token, name: "GPU-7"));

        (other.Code, own.Status).ShouldBe(("join.wrong_node", HttpStatusCode.OK));
    }

    [Fact]
    public async Task Token_of_another_control_plane_is_not_even_shown_to_this_one()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var other = await TestCluster.StartAsync();
        await cluster.TokenAsync();
        var foreign = await other.TokenAsync();
        using var client = cluster.Client();

        var refused = await Should.ThrowAsync<ClusterException>(() => NodeAgent.StartAsync(cluster.Join, foreign));

        refused.Message.ShouldContain("certificate authority is another");
        (await JoinAsync(client, TestCluster.JoinRequest(foreign))).Code.ShouldBe("join.token_unknown");
        (await other.Host.Client.JsonAsync("/api/nodes/join-tokens"))[0].GetProperty("status").GetString().ShouldBe("active");
    }

    [Fact]
    public async Task Every_changed_character_spoils_a_token()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync();
        for (var i = 0; i < token.Length; i += 5)
        {
            // not the last character of a part: some of its bits are padding
            var changed = token[..i] + (token[i] == 'A' ? 'B' : 'A') + token[(i + 1)..];
            await Should.ThrowAsync<ClusterException>(() => NodeAgent.StartAsync(cluster.Join, changed), changed);
        }
        foreach (var wrong in (string[])["", "x", token[..^1], token + "A", token.Replace(".", "", StringComparison.Ordinal), token + "." + token, " " + token])
            await Should.ThrowAsync<ClusterException>(() => NodeAgent.StartAsync(cluster.Join, wrong), wrong);

        await using var agent = await NodeAgent.StartAsync(cluster.Join, token);
    }

    [Fact]
    public async Task Id_of_a_node_stays_with_its_key()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var first = agent.Certificate;
        using var client = cluster.Client();

        var thief = await JoinAsync(client, TestCluster.JoinRequest(await cluster.TokenAsync(), agent.Uid, "thief"));
        var named = await JoinAsync(client, TestCluster.JoinRequest(await cluster.TokenAsync("thief"), agent.Uid, "thief"));
        var controlPlane = await JoinAsync(client, TestCluster.JoinRequest(await cluster.TokenAsync(), (await File.ReadAllTextAsync(Path.Combine(cluster.Host.Node.Data, "node-id"), Ct)).Trim()));
        using var before = await BeatAsync(cluster, first);
        var meant = await JoinAsync(client, TestCluster.JoinRequest(await cluster.TokenAsync("gpu-1"), agent.Uid));

        (thief.Code, named.Code, controlPlane.Code).ShouldBe(("join.id_taken", "join.id_taken", "validation"));
        (before.StatusCode, meant.Status).ShouldBe((HttpStatusCode.OK, HttpStatusCode.OK));
    }

    [Fact]
    public async Task Joining_anew_ends_the_certificates_of_before()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var stolen = agent.Certificate;
        using var client = cluster.Client();

        cluster.Clock.By = TimeSpan.FromSeconds(2);
        var anew = await JoinAsync(client, TestCluster.JoinRequest(await cluster.TokenAsync("gpu-1"), agent.Uid));
        using var beat = await BeatAsync(cluster, stolen);
        using var renewal = await RenewAsync(cluster, stolen);

        anew.Status.ShouldBe(HttpStatusCode.OK);
        (beat.StatusCode, renewal.StatusCode).ShouldBe((HttpStatusCode.Forbidden, HttpStatusCode.Forbidden));
    }

    [Fact]
    public async Task Node_joins_anew_with_another_token_and_keeps_its_id_and_passes_over_the_one_that_it_used()
    {
        await using var cluster = await TestCluster.StartAsync();
        using var surroundings = new TestNode();
        var (first, second) = (await cluster.TokenAsync(), await cluster.TokenAsync());
        string uid;
        await using (var agent = await NodeAgent.StartAsync(cluster.Join, first, surroundings, time: cluster.Clock))
            uid = agent.Uid;
        await cluster.Service.RevokeAsync(uid, "gpu-1", Ct);

        await using (var same = await NodeAgent.StartAsync(cluster.Join, first, surroundings, time: cluster.Clock))
            await Should.ThrowAsync<ClusterException>(same.RenewAsync);
        await using var anew = await NodeAgent.StartAsync(cluster.Join, second, surroundings, time: cluster.Clock);
        await anew.RenewAsync();

        anew.Uid.ShouldBe(uid);
        await cluster.StatusAsync("gpu-1", "online");
    }

    [Fact]
    public async Task Broken_requests_are_refused_and_use_no_token_up()
    {
        await using var cluster = await TestCluster.StartAsync();
        var token = await cluster.TokenAsync();
        using var client = cluster.Client();
        using var rsa = RSA.Create(2048);
        using var small = ECDsa.Create(ECCurve.NamedCurves.nistP521);
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var good = TestCluster.SigningRequest(key);
        var lines = good.Split('\n');
        lines[2] = (lines[2][0] == 'A' ? 'B' : 'A') + lines[2][1..];
        foreach (var (field, value) in ((string, string)[])
            [
                ("signing_request", ""), ("signing_request", "x"), ("signing_request", string.Join('\n', lines)), ("signing_request", good[..^40]),
                ("signing_request", new CertificateRequest("CN=x", rsa, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1).CreateSigningRequestPem()),
                ("signing_request", new CertificateRequest("CN=x", small, HashAlgorithmName.SHA256).CreateSigningRequestPem()),
                ("signing_request", good + new string('\n', 10_000)),
                ("node_id", ""), ("node_id", "../../etc/passwd"), ("node_id", new string('g', 32)), ("node_id", new string('A', 32)), ("node_id", new string('a', 33)),
                ("name", ""), ("name", "a\nb"), ("name", new string('x', 256)),
            ])
        {
            var request = TestCluster.JoinRequest(token);
            request[field] = value;

            var answer = await JoinAsync(client, request);

            (answer.Status, answer.Code).ShouldBe((HttpStatusCode.BadRequest, "validation"), $"{field}: {value}");
            answer.Detail.ShouldStartWith(field + ":");
        }
        foreach (var (body, status) in ((string, HttpStatusCode)[])
            [("", HttpStatusCode.BadRequest), ("{", HttpStatusCode.BadRequest), ("null", HttpStatusCode.BadRequest), ("{}", HttpStatusCode.BadRequest), ("{\"secret\":null}", HttpStatusCode.BadRequest),
                (new string(' ', 100_000), HttpStatusCode.RequestEntityTooLarge)])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/cluster/join") { Content = new StringContent(body, Encoding.UTF8, "application/json") };
            // a server that refuses a body while it is being sent breaks the pipe, at times before its answer is read
            request.Headers.ExpectContinue = body.Length > 0;
            using var answer = await client.SendAsync(request, Ct);
            answer.StatusCode.ShouldBe(status, body.Length > 100 ? "long" : body);
        }

        (await JoinAsync(client, TestCluster.JoinRequest(token))).Status.ShouldBe(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("{\"ttl_minutes\":0}", "ttl_minutes")]
    [InlineData("{\"ttl_minutes\":100000}", "ttl_minutes")]
    [InlineData("{\"ttl_minutes\":\"5\"}", "ttl_minutes")]
    [InlineData("{\"node_name\":\"\"}", "node_name")]
    [InlineData("{\"node_name\":\"a b\"}", "node_name")]
    [InlineData("{\"node_name\":\"a\\n\"}", "node_name")]
    public async Task Wrong_wish_for_a_token_is_a_400_that_names_the_field(string body, string field)
    {
        await using var cluster = await TestCluster.StartAsync();

        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        using var answer = await cluster.Host.Client.PostAsync(new Uri("/api/nodes/join-tokens", UriKind.Relative), content, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("errors").EnumerateObject().Select(error => error.Name).ShouldBe([field]);
        (await cluster.Host.Client.JsonAsync("/api/nodes/join-tokens")).GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public async Task Port_that_is_taken_is_told_and_makes_no_token()
    {
        using var taken = new System.Net.Sockets.TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        await using var host = await ControlPlane.StartAsync(configuration: [$"Cluster:Listen={taken.LocalEndpoint}"]);

        using var answer = await host.Client.PostAsJsonAsync("/api/nodes/join-tokens", new { }, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable);
        (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("code").GetString().ShouldBe("cluster.not_listening");
        (await host.Client.JsonAsync("/api/nodes/join-tokens")).GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public async Task Certificate_of_a_node_is_renewed_after_two_thirds_of_its_life_and_for_thirty_days_after_it()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: ["Settings:NodesSyncIntervalSeconds=1"]);
        await using var agent = await cluster.AgentAsync();
        await cluster.StatusAsync("gpu-1", "online");
        var first = agent.Certificate;
        cluster.Clock.By = TimeSpan.FromHours(15.5);
        agent.IsRenewalDue.ShouldBeFalse();

        cluster.Clock.By = TimeSpan.FromHours(16.5);
        await Deadline.UntilAsync(() => agent.Certificate != first, what: "the certificate to be renewed");
        var second = agent.Certificate;
        using (var beat = await BeatAsync(cluster, first))
            beat.StatusCode.ShouldBe(HttpStatusCode.OK); // it is valid until it runs out

        cluster.Clock.By = TimeSpan.FromDays(20);
        using (var beat = await BeatAsync(cluster, second))
            beat.StatusCode.ShouldBe(HttpStatusCode.Forbidden);
        await Deadline.UntilAsync(() => agent.Certificate != second, what: "the certificate that ran out to be renewed");
        using (var beat = await BeatAsync(cluster, agent.Certificate))
            beat.StatusCode.ShouldBe(HttpStatusCode.OK);

        cluster.Clock.By = TimeSpan.FromDays(20 + 31.1);
        (await Should.ThrowAsync<ClusterException>(agent.RenewAsync)).Message.ShouldContain("ran out");
        second.GetPublicKeyString().ShouldNotBe(first.GetPublicKeyString());
    }

    [Fact]
    public async Task Certificates_that_are_not_of_a_member_open_nothing()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var other = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        await using var foreigner = await other.AgentAsync();
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var forged = new CertificateRequest("CN=x", key, HashAlgorithmName.SHA256);
        forged.CertificateExtensions.Add(ClusterName.Read(agent.Certificate)!.ToExtension());
        using var selfSigned = forged.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        // signed with the key of a member, which is no authority
        using var grandchild = forged.Create(agent.Certificate.SubjectName, X509SignatureGenerator.CreateForECDsa(agent.Certificate.GetECDsaPrivateKey()!), DateTimeOffset.UtcNow.AddHours(-1), DateTimeOffset.UtcNow.AddHours(1), [1]);
        using var byMember = grandchild.CopyWithPrivateKey(key);
        using var controlPlane = Authority(cluster).ControlPlane();
        using var revoked = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        await cluster.Service.RevokeAsync(ClusterName.Read(revoked)!.NodeId, "gpu-1", Ct);
        foreach (var (what, shown) in ((string, X509Certificate2?)[])
            [("none", null), ("of another cluster", foreigner.Certificate), ("self-signed", selfSigned), ("signed by a member", byMember), ("of a control plane", controlPlane), ("revoked", revoked)])
        {
            using var beat = await BeatAsync(cluster, shown);
            using var renewal = await RenewAsync(cluster, shown);

            (beat.StatusCode, renewal.StatusCode).ShouldBe((HttpStatusCode.Forbidden, HttpStatusCode.Forbidden), what);
        }
        cluster.Clock.By = TimeSpan.FromHours(-12);
        using (var early = await BeatAsync(cluster, agent.Certificate))
            early.StatusCode.ShouldBe(HttpStatusCode.Forbidden);
        using var nowhere = cluster.Client(agent.Certificate);
        using var unknown = await nowhere.GetAsync(new Uri("/api/nodes", UriKind.Relative), Ct);
        unknown.StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Fact]
    public async Task What_was_revoked_stays_revoked_over_a_restart_and_a_lost_database_until_the_node_is_let_in_again()
    {
        using var surroundings = new TestNode();
        X509Certificate2 certificate;
        string uid;
        await using (var cluster = await TestCluster.StartAsync(surroundings))
        {
            await using var agent = await cluster.AgentAsync();
            (certificate, uid) = (agent.Certificate, agent.Uid);
            await cluster.Service.RevokeAsync(uid, "gpu-1", Ct);
        }
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools(); // they keep the files that are gone
        foreach (var file in Directory.GetFiles(surroundings.Data, "modelhost.db*"))
            File.Delete(file);

        await using var again = await TestCluster.StartAsync(surroundings, "Cluster:Open=true");
        using (var beat = await BeatAsync(again, certificate))
            beat.StatusCode.ShouldBe(HttpStatusCode.Forbidden);
        using var client = again.Client();
        (await JoinAsync(client, TestCluster.JoinRequest(await again.TokenAsync("gpu-1"), uid))).Status.ShouldBe(HttpStatusCode.OK);
        using var anew = again.CertificateOf(uid);
        using (var beat = await BeatAsync(again, anew))
            beat.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    private static ClusterAuthority Authority(TestCluster cluster) =>
        Microsoft.Extensions.DependencyInjection.ServiceProviderServiceExtensions.GetRequiredService<Lazy<ClusterAuthority>>(cluster.Host.Services).Value;

    private static async Task<(HttpStatusCode Status, string? Code, string Detail)> JoinAsync(HttpClient client, Dictionary<string, string> request)
    {
        using var answer = await client.PostAsJsonAsync("/cluster/join", request, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        return (answer.StatusCode, body.TryGetProperty("code", out var code) ? code.GetString() : null, body.TryGetProperty("detail", out var detail) ? detail.GetString()! : "");
    }

    private static async Task<HttpResponseMessage> BeatAsync(TestCluster cluster, X509Certificate2? shown)
    {
        using var client = cluster.Client(shown);
        return await client.PostAsJsonAsync("/cluster/heartbeat", new { hostname = "gpu-1", port = 9, agent_version = "0.1.0" }, Ct);
    }

    private static async Task<HttpResponseMessage> RenewAsync(TestCluster cluster, X509Certificate2? shown)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var client = cluster.Client(shown);
        return await client.PostAsJsonAsync("/cluster/renew", new { signing_request = TestCluster.SigningRequest(key) }, Ct);
    }

    private static void ShouldNotHave(string folder, string secret) =>
        FolderText.Read(folder).ShouldAllBe(text => !text.Contains(secret));
}
