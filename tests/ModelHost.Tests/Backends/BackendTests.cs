using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;
using ModelHost.Tests.Cluster;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Backends;

/// <summary>Backends are listed, installed, upgraded and deleted, on the nodes that are meant.</summary>
public sealed class BackendTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Backend_is_installed_listed_and_deleted_in_the_documented_shapes()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        var before = await host.Client.GetStringAsync("/backends", Ct);
        var available = await host.Client.GetStringAsync("/backends/available", Ct);
        var applied = await PostAsync(host.Client, "/backends/apply", """{"id":"own@PLAIN"}""");
        var job = applied.Body.GetProperty("id").GetString()!;
        var status = await EndAsync(host.Client, job);
        var list = await host.Client.JsonAsync("/backends");
        var onNode = await host.Client.JsonAsync("/api/nodes/1/backends");
        var known = await host.Client.JsonAsync("/backends/known");
        var shown = (await host.Client.JsonAsync("/backends/available")).EnumerateArray().Single(one => one.GetProperty("name").GetString() == "plain");
        var deleted = await PostAsync(host.Client, "/backends/delete/plain?wait=true", null);
        var gone = await host.Client.GetStringAsync("/backends", Ct);
        var again = await PostAsync(host.Client, "/backends/delete/plain?wait=true", null);

        before.ShouldBe("[]");
        available.ShouldStartWith($$"""[{"name":"plain","description":"A plain one","license":"mit","tags":["text"],"gallery":{"url":"{{gallery.Url}}","name":"own"},"alias":"simple","uri":"{{gallery.At("plain/run.sh")}}","version":"1.0"},""");
        applied.Status.ShouldBe(HttpStatusCode.OK);
        applied.Body.GetRawText().ShouldBe($$"""{"id":"{{job}}","status_url":"{{host.Url}}backends/jobs/{{job}}"}""");
        (status.GetProperty("message").GetString(), status.GetProperty("gallery_element_name").GetString()).ShouldBe(("completed", "own@PLAIN"));
        var node = status.GetProperty("nodes").EnumerateArray().ShouldHaveSingleItem();
        (node.GetProperty("node_id").GetString(), node.GetProperty("status").GetString(), node.GetProperty("percentage").GetDouble()).ShouldBe(("1", "success", 100));
        var one = list.EnumerateArray().ShouldHaveSingleItem();
        var metadata = one.GetProperty("Metadata");
        var at = metadata.GetProperty("installed_at").GetRawText();
        var digest = metadata.GetProperty("digest").GetString()!;
        digest.ShouldStartWith("sha256:");
        one.GetRawText().ShouldBe($$$"""{"Name":"plain","RunFile":"{{{host.Node.Data}}}/backends/plain/run.sh","IsMeta":false,"IsSystem":false,"Metadata":{"alias":"simple","name":"plain","gallery_url":"{{{gallery.Url}}}","installed_at":{{{at}}},"version":"1.0","uri":"{{{gallery.At("plain/run.sh")}}}","digest":"{{{digest}}}"}}""");
        onNode.GetRawText().ShouldBe($$"""[{"name":"plain","is_system":false,"is_meta":false,"installed_at":{{at}},"gallery_url":"{{gallery.Url}}","version":"1.0","uri":"{{gallery.At("plain/run.sh")}}","digest":"{{digest}}"}]""");
        known[0].GetRawText().ShouldBe("""{"name":"plain","modality":"","auto_detect":false,"installed":true}""");
        shown.GetProperty("installed").GetBoolean().ShouldBeTrue();
        deleted.Body.GetProperty("job").GetProperty("message").GetString().ShouldBe("completed");
        deleted.Body.GetProperty("job").GetProperty("deletion").GetBoolean().ShouldBeTrue();
        gone.ShouldBe("[]");
        Directory.Exists(Path.Combine(host.Node.Data, "backends", "plain")).ShouldBeFalse();
        again.Body.GetProperty("job").GetProperty("error").GetString().ShouldBe("backend plain is not installed on any node");
    }

    [Fact]
    public async Task Known_backends_come_in_the_documented_order()
    {
        await using var host = await ControlPlane.StartAsync();

        var known = (await host.Client.JsonAsync("/backends/known")).EnumerateArray().ToArray();

        var names = Array.ConvertAll(known, one => (Modality: one.GetProperty("modality").GetString()!, Name: one.GetProperty("name").GetString()!));
        names.ShouldBe(names.OrderBy(one => one.Modality, StringComparer.Ordinal).ThenBy(one => one.Name, StringComparer.Ordinal));
        names.Length.ShouldBeGreaterThan(55);
        // the importer's entry goes before the one that is only taken when asked for
        known.Single(one => one.GetProperty("name").GetString() == "ds4").GetRawText().ShouldBe("""{"name":"ds4","modality":"text","auto_detect":true,"installed":false}""");
        known.Single(one => one.GetProperty("name").GetString() == "sglang").GetRawText()
            .ShouldBe("""{"name":"sglang","modality":"text","auto_detect":false,"description":"SGLang runtime (preference-only)","installed":false}""");
    }

    [Fact]
    public async Task Meta_backend_is_resolved_on_every_node_by_its_capability()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var cluster = await TestCluster.StartAsync(null, [.. gallery.Configuration, "Galleries:Capabilities:gpu-1=nvidia-cuda-13"]);
        await using var agent = await cluster.AgentAsync();
        var other = await cluster.StatusAsync("gpu-1", "online");
        var client = cluster.Host.Client;

        var job = (await PostAsync(client, "/backends/apply?wait=true", """{"id":"echo"}""")).Body.GetProperty("job");
        var list = (await client.JsonAsync("/backends")).EnumerateArray().ToDictionary(one => one.GetProperty("Name").GetString()!);
        var local = list["cpu-echo"].GetProperty("nodes").EnumerateArray().ShouldHaveSingleItem().GetProperty("node_id").GetString();
        var available = (await client.JsonAsync("/backends/available")).EnumerateArray().Select(one => one.GetProperty("name").GetString()).ToArray();
        var metadata = await File.ReadAllTextAsync(Path.Combine(agent.Node.Data, "backends", "cuda-echo", "metadata.json"), Ct);
        var removed = (await PostAsync(client, "/backends/delete/echo?wait=true", null)).Body.GetProperty("job");

        job.GetProperty("message").GetString().ShouldBe("completed", job.GetRawText());
        job.GetProperty("nodes").GetArrayLength().ShouldBe(2);
        list.Keys.ShouldBe(["cpu-echo", "cuda-echo", "echo"]);
        list["echo"].GetProperty("IsMeta").GetBoolean().ShouldBeTrue();
        list["echo"].GetProperty("nodes").GetArrayLength().ShouldBe(2);
        local.ShouldNotBe($"{other}");
        var far = list["cuda-echo"].GetProperty("nodes").EnumerateArray().ShouldHaveSingleItem();
        (far.GetProperty("node_id").GetString(), far.GetProperty("node_name").GetString(), far.GetProperty("node_status").GetString(), far.GetProperty("version").GetString())
            .ShouldBe(($"{other}", "gpu-1", "online", "2.0"));
        list["cuda-echo"].GetProperty("RunFile").GetString().ShouldBe("backends/cuda-echo/run.sh");
        // a node finds it by the name that was asked for
        metadata.ShouldContain("\"alias\": \"echo\"");
        available.ShouldContain("cuda-echo");
        available.ShouldNotContain("rocm-echo");
        // what it stood for goes with it
        removed.GetProperty("message").GetString().ShouldBe("completed", removed.GetRawText());
        (await client.GetStringAsync("/backends", Ct)).ShouldBe("[]");
        Directory.Exists(Path.Combine(agent.Node.Data, "backends", "cuda-echo")).ShouldBeFalse();
    }

    [Fact]
    public async Task Build_for_one_kind_of_machine_needs_a_target_when_there_are_several()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var cluster = await TestCluster.StartAsync(null, gallery.Configuration);
        await using var agent = await cluster.AgentAsync();
        var other = await cluster.StatusAsync("gpu-1", "online");
        var client = cluster.Host.Client;

        foreach (var id in (string[])["cuda-echo", "own@cuda-echo", "OWN@CUDA-ECHO"])
        {
            var (status, body) = await PostAsync(client, "/backends/apply", $$"""{"id":"{{id}}"}""");
            status.ShouldBe(HttpStatusCode.Conflict);
            body.EnumerateObject().Select(field => field.Name).Order().ShouldBe(["code", "error", "meta_alternative"]);
            (body.GetProperty("code").GetString(), body.GetProperty("meta_alternative").GetString()).ShouldBe(("concrete_backend_requires_target", "echo"));
            body.GetProperty("error").GetString().ShouldNotBeNull().ShouldContain($"POST /api/nodes/{{node_id}}/backends/install\n  {{\"backend\": \"{id}\"}}");
        }
        var plain = await PostAsync(client, "/backends/apply", """{"id":"plain"}""");
        var unknown = await PostAsync(client, "/backends/apply?wait=true", """{"id":"nothing"}""");
        var named = await PostAsync(client, "/backends/apply?wait=true", """{"id":"cuda-echo","nodes":["gpu-1"]}""");
        var (accepted, answer) = await PostAsync(client, $"/api/nodes/{other}/backends/install?wait=true", """{"backend":"plain"}""");
        var missing = await PostAsync(client, "/api/nodes/987/backends/install", """{"backend":"plain"}""");

        plain.Status.ShouldBe(HttpStatusCode.Conflict);
        plain.Body.GetProperty("meta_alternative").GetString().ShouldBe("");
        unknown.Body.GetProperty("job").GetProperty("error").GetString().ShouldBe("no backend found with name \"nothing\"");
        named.Body.GetProperty("job").GetProperty("message").GetString().ShouldBe("completed");
        accepted.ShouldBe(HttpStatusCode.Accepted);
        var job = answer.GetProperty("jobID").GetString();
        (answer.GetProperty("statusUrl").GetString(), answer.GetProperty("message").GetString()).ShouldBe(($"/api/backends/job/{job}", "backend installation started"));
        (await client.GetStringAsync($"/api/backends/job/{job}", Ct)).ShouldBe("""{"progress":100,"message":"completed","gallery_element_name":"plain","processed":true,"deletion":false,"queued":false,"completed":true}""".Replace("gallery_element_name", "galleryElementName", StringComparison.Ordinal));
        missing.Status.ShouldBe(HttpStatusCode.NotFound);
        (await NamesAsync(client, other)).ShouldBe(["cuda-echo", "plain"]);
        (await NamesAsync(client, 1)).ShouldBeEmpty();
    }

    [Fact]
    public async Task Upgrades_are_found_by_version_and_by_drift_and_done_on_the_nodes_that_have_it()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var cluster = await TestCluster.StartAsync(null, gallery.Configuration);
        await using var agent = await cluster.AgentAsync();
        var other = await cluster.StatusAsync("gpu-1", "online");
        var client = cluster.Host.Client;
        await PostAsync(client, $"/api/nodes/{other}/backends/install?wait=true", """{"backend":"plain"}""");
        (await PostAsync(client, "/backends/upgrades/check?wait=true", null)).Body.GetRawText().ShouldBe("{}");

        gallery.Offer("1.1");
        await Deadline.UntilAsync(() => client.JsonAsync("/backends/available"), list => list[0].GetProperty("version").GetString() == "1.1", what: "the gallery to be read anew");
        await PostAsync(client, "/api/nodes/1/backends/install?wait=true", """{"backend":"plain"}""");
        var found = (await PostAsync(client, "/backends/upgrades/check?wait=true", null)).Body.GetProperty("plain");
        var listed = (await client.JsonAsync("/backends")).EnumerateArray().Single();
        var upgraded = (await PostAsync(client, "/backends/upgrade/plain?wait=true", null)).Body.GetProperty("job");
        var after = (await PostAsync(client, "/backends/upgrades/check?wait=true", null)).Body.GetRawText();
        var absent = (await PostAsync(client, "/backends/upgrade/cuda-echo?wait=true", null)).Body.GetProperty("job");

        found.GetProperty("backend_name").GetString().ShouldBe("plain");
        found.GetProperty("available_version").GetString().ShouldBe("1.1");
        var drift = found.GetProperty("node_drift").EnumerateArray().ShouldHaveSingleItem();
        // as many nodes have either: what was installed last counts
        (drift.GetProperty("node_id").GetString(), drift.GetProperty("node_name").GetString(), drift.GetProperty("version").GetString()).ShouldBe(($"{other}", "gpu-1", "1.0"));
        (listed.GetProperty("upgrade_available").GetBoolean(), listed.GetProperty("available_version").GetString()).ShouldBe((true, "1.1"));
        upgraded.GetProperty("message").GetString().ShouldBe("completed", upgraded.GetRawText());
        upgraded.GetProperty("nodes").GetArrayLength().ShouldBe(2);
        after.ShouldBe("{}");
        File.ReadAllText(Path.Combine(agent.Node.Data, "backends", "plain", "run.sh")).ShouldContain("1.1");
        absent.GetProperty("error").GetString().ShouldBe("cuda-echo is not installed on any node");
    }

    [Fact]
    public async Task Image_is_unpacked_on_two_nodes_and_its_drift_and_upgrade_are_seen_by_the_digest()
    {
        await using var images = await ImageServer.StartAsync();
        byte[] Layer(string what) => Archives.Gzip(Archives.Tar(Archives.File("run.sh", $"#!/bin/sh\n# {what}\n"), Archives.File("lib/code.py", what)));
        var first = images.Push("org/backends", "latest", Layer("one"));
        await using var gallery = await BackendGallery.StartAsync();
        gallery.Serve($"- {{name: imaged, alias: pictured, uri: 'oci://{images.Host}/org/backends:latest'}}");
        var insecure = $"Downloads:InsecureRegistries={images.Host}";
        using var surroundings = new TestNode();
        surroundings.Downloads = [.. surroundings.Downloads, insecure];
        await using var cluster = await TestCluster.StartAsync(null, [.. gallery.Configuration, insecure]);
        await using var agent = await cluster.AgentAsync(node: surroundings);
        var other = await cluster.StatusAsync("gpu-1", "online");
        var client = cluster.Host.Client;

        var installed = (await PostAsync(client, $"/api/nodes/{other}/backends/install?wait=true", """{"backend":"imaged"}""")).Body.GetProperty("job");
        var second = images.Push("org/backends", "latest", Layer("two"));
        await PostAsync(client, "/api/nodes/1/backends/install?wait=true", """{"backend":"imaged"}""");
        var drifted = (await PostAsync(client, "/backends/upgrades/check?wait=true", null)).Body.GetProperty("imaged");
        var third = images.Push("org/backends", "latest", Layer("three"));
        var outdated = (await PostAsync(client, "/backends/upgrades/check?wait=true", null)).Body.GetProperty("imaged");
        var upgraded = (await PostAsync(client, "/backends/upgrade/imaged?wait=true", null)).Body.GetProperty("job");
        var after = (await PostAsync(client, "/backends/upgrades/check?wait=true", null)).Body.GetRawText();
        var nodes = (await client.JsonAsync("/backends"))[0].GetProperty("nodes").EnumerateArray().Select(node => node.GetProperty("digest").GetString()).ToArray();

        installed.GetProperty("message").GetString().ShouldBe("completed", installed.GetRawText());
        // what the registry has now is what most have, or came last
        drifted.GetRawText().ShouldBe($$$"""{"backend_name":"imaged","installed_version":"","available_version":"","installed_digest":"{{{second}}}","available_digest":"{{{second}}}","node_drift":[{"node_id":"{{{other}}}","node_name":"gpu-1","digest":"{{{first}}}"}]}""");
        outdated.GetProperty("available_digest").GetString().ShouldBe(third);
        upgraded.GetProperty("message").GetString().ShouldBe("completed", upgraded.GetRawText());
        after.ShouldBe("{}");
        nodes.ShouldBe([third, third]);
        foreach (var data in (string[])[surroundings.Data, cluster.Host.Node.Data])
            File.ReadAllText(Path.Combine(data, "backends", "imaged", "lib", "code.py")).ShouldBe("three");
        File.ReadAllText(Path.Combine(surroundings.Data, "backends", "imaged", "metadata.json")).ShouldContain("\"alias\": \"pictured\"");
    }

    [Fact]
    public async Task Images_are_compared_by_the_digest_that_their_tag_leads_to()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        var node = await QuietNode.AddAsync(host);
        var uri = $"oci://{gallery.Authority}/org/image:latest";
        gallery.Manifest("org/image", "latest", "{}");
        var installed = (await PostAsync(host.Client, $"/api/nodes/{node.Id}/backends/install?wait=true", $$"""{"uri":"{{uri}}","name":"imaged"}""")).Body.GetProperty("job");
        node.Has.Artifacts.Single().Uris.Add(uri);
        var found = (await PostAsync(host.Client, "/backends/upgrades/check?wait=true", null)).Body.GetProperty("imaged");
        node.Has.Artifacts.Single().Digest = found.GetProperty("available_digest").GetString();
        var same = (await PostAsync(host.Client, "/backends/upgrades/check?wait=true", null)).Body.GetRawText();
        gallery.Manifest("org/image", "latest", "{ }");
        var changed = (await PostAsync(host.Client, "/backends/upgrades/check?wait=true", null)).Body.GetProperty("imaged");
        var upgraded = (await PostAsync(host.Client, "/backends/upgrade/imaged?wait=true", null)).Body.GetProperty("job");

        installed.GetProperty("message").GetString().ShouldBe("completed", installed.GetRawText());
        found.GetProperty("installed_digest").GetString().ShouldBe($"sha256:{new string('d', 64)}");
        found.GetProperty("available_digest").GetString().ShouldBe("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        same.ShouldBe("{}");
        // from where it came
        upgraded.GetProperty("message").GetString().ShouldBe("completed", upgraded.GetRawText());
        node.Pulled.Select(pull => pull.Files.Single().Uri).ShouldBe([uri, uri]);
        changed.GetProperty("installed_digest").GetString().ShouldBe("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }

    [Fact]
    public async Task Versions_of_vLLM_are_the_tags_on_the_nodes_and_an_upgrade_prepares_images_where_it_is_asked_to()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await ControlPlane.StartAsync(null, "http://127.0.0.1:0", null, [.. gallery.Configuration, $"Releases:Url={gallery.At("releases/latest")}", "Releases:Timeout=00:00:30"]);
        var local = await host.Client.NodeAsync("process");
        var node = await QuietNode.AddAsync(host);
        var report = new ModelHost.Protocol.NodeReport { Hostname = "quiet", Runtimes = { "docker", "process" } };
        node.Says(report);
        foreach (var tag in (string[])["v0.9.2", "v0.10.0", "nightly"])
            node.Has.Artifacts.Add(new ModelHost.Protocol.Artifact { Kind = ModelHost.Protocol.ArtifactKind.Image, Name = $"vllm/vllm-openai:{tag}", Version = tag, Digest = $"sha256:{tag}" });
        var running = await host.Client.StartModelAsync(Api.StartRequest(local));
        await host.Client.StatusAsync(running, "running");
        var run = (await host.Client.JsonAsync($"/api/deployments/{running}/runs")).GetRawText();

        var list = (await host.Client.JsonAsync($"/api/nodes/{node.Id}/backends")).EnumerateArray().ShouldHaveSingleItem();
        var found = (await PostAsync(host.Client, "/backends/upgrades/check?wait=true", null)).Body.GetProperty("vllm");
        var upgraded = (await PostAsync(host.Client, $"/backends/upgrade/vllm?wait=true&nodes={node.Id}", null)).Body.GetProperty("job");
        var chosen = (await PostAsync(host.Client, "/backends/upgrade/vllm?wait=true&nodes=quiet&version=0.10.1", null)).Body.GetProperty("job");
        var after = (await host.Client.JsonAsync($"/api/nodes/{node.Id}/backends")).EnumerateArray().ShouldHaveSingleItem();
        var deleted = (await PostAsync(host.Client, "/backends/delete/vllm?wait=true", null)).Body.GetProperty("job");
        var wrong = await PostAsync(host.Client, "/backends/upgrade/vllm?version=../x", null);

        (list.GetProperty("name").GetString(), list.GetProperty("version").GetString(), list.GetProperty("is_system").GetBoolean()).ShouldBe(("vllm", "0.10.0", true));
        list.GetProperty("versions").EnumerateArray().Select(one => one.GetString()).ShouldBe(["nightly", "0.10.0", "0.9.2"]);
        (found.GetProperty("installed_version").GetString(), found.GetProperty("available_version").GetString()).ShouldBe(("0.10.0", "0.11.0"));
        upgraded.GetProperty("message").GetString().ShouldBe("completed", upgraded.GetRawText());
        chosen.GetProperty("message").GetString().ShouldBe("completed", chosen.GetRawText());
        node.Pulled.Select(pull => $"{pull.Kind} {pull.Name}").ShouldBe(["Image vllm/vllm-openai:v0.11.0", "Image vllm/vllm-openai:v0.10.1"]);
        after.GetProperty("version").GetString().ShouldBe("0.11.0");
        deleted.GetProperty("error").GetString().ShouldNotBeNull().ShouldContain("is part of node quiet");
        wrong.Status.ShouldBe(HttpStatusCode.BadRequest);
        // what runs goes on as it was
        (await host.Client.JsonAsync($"/api/deployments/{running}/runs")).GetRawText().ShouldBe(run);
        (await host.Client.JsonAsync($"/api/deployments/{running}")).GetProperty("status").GetString().ShouldBe("running");
        await host.Client.StopModelAsync(running);
    }

    [Fact]
    public async Task Failed_installation_says_why_and_leaves_what_was_there()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        await PostAsync(host.Client, "/backends/apply?wait=true", """{"id":"plain"}""");
        var was = await host.Client.GetStringAsync("/backends", Ct);
        gallery.Break("plain/run.sh");

        var failed = (await PostAsync(host.Client, "/backends/apply?wait=true", """{"id":"plain","force":true}""")).Body.GetProperty("job");
        var kept = (await PostAsync(host.Client, "/backends/apply?wait=true", """{"id":"plain"}""")).Body.GetProperty("job");

        failed.GetProperty("error").GetString().ShouldNotBeNull().ShouldContain("404");
        failed.GetProperty("nodes")[0].GetProperty("status").GetString().ShouldBe("error");
        // without force, what is there is left alone
        kept.GetProperty("message").GetString().ShouldBe("completed");
        (await host.Client.GetStringAsync("/backends", Ct)).ShouldBe(was);
        File.ReadAllText(Path.Combine(host.Node.Data, "backends", "plain", "run.sh")).ShouldContain("1.0");
    }

    [Fact]
    public async Task Cancelled_installation_stays_cancelled_and_leaves_nothing()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        gallery.Hang("plain/run.sh", after: 5);
        var job = (await PostAsync(host.Client, "/backends/apply", """{"id":"plain"}""")).Body.GetProperty("id").GetString()!;
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/backends/jobs/{job}"), status => status.TryGetProperty("nodes", out var nodes) && nodes[0].GetProperty("status").GetString() == "downloading");

        var cancelled = await PostAsync(host.Client, $"/backends/jobs/{job}/cancel", null);

        cancelled.Body.GetProperty("message").GetString().ShouldBe("cancelled");
        await Deadline.UntilAsync(() => Task.FromResult(Directory.GetFileSystemEntries(Path.Combine(host.Node.Data, "backends", ".staging")).Length), left => left == 0, what: "the download to be removed");
        (await host.Client.JsonAsync($"/backends/jobs/{job}")).GetProperty("cancelled").GetBoolean().ShouldBeTrue();
        (await host.Client.GetStringAsync("/backends", Ct)).ShouldBe("[]");
    }

    [Fact]
    public async Task Installation_is_resumed_after_a_restart()
    {
        await using var gallery = await BackendGallery.StartAsync();
        using var surroundings = new TestNode();
        string job;
        gallery.Hang("plain/run.sh", after: 5);
        await using (var host = await gallery.HostAsync(surroundings))
        {
            await host.Client.NodeAsync("process");
            job = (await PostAsync(host.Client, "/backends/apply", """{"id":"plain"}""")).Body.GetProperty("id").GetString()!;
            await Deadline.UntilAsync(() => host.Client.JsonAsync($"/backends/jobs/{job}"), status => status.TryGetProperty("nodes", out var nodes) && nodes[0].GetProperty("status").GetString() == "downloading");
        }
        gallery.Offer("1.0");
        await using var again = await gallery.HostAsync(surroundings);

        var status = await EndAsync(again.Client, job);

        status.GetProperty("message").GetString().ShouldBe("completed", status.GetRawText());
        (await again.Client.JsonAsync("/backends")).EnumerateArray().ShouldHaveSingleItem().GetProperty("Metadata").GetProperty("version").GetString().ShouldBe("1.0");
    }

    [Fact]
    public async Task Node_that_does_not_answer_has_what_it_had_and_takes_nothing()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        var node = await QuietNode.AddAsync(host);
        await PostAsync(host.Client, $"/api/nodes/{node.Id}/backends/install?wait=true", """{"backend":"plain"}""");
        node.FallsSilent();

        var list = (await host.Client.JsonAsync("/backends")).EnumerateArray().ShouldHaveSingleItem();
        var failed = (await PostAsync(host.Client, $"/api/nodes/{node.Id}/backends/install?wait=true", """{"backend":"cuda-echo"}""")).Body.GetProperty("job");
        var kept = (await PostAsync(host.Client, "/backends/delete/plain?wait=true", null)).Body.GetProperty("job");
        using var read = await host.Client.GetAsync($"/api/nodes/{node.Id}/backends", Ct);

        (list.GetProperty("Name").GetString(), list.GetProperty("nodes")[0].GetProperty("node_name").GetString()).ShouldBe(("plain", "quiet"));
        failed.GetProperty("error").GetString().ShouldNotBeNull().ShouldContain("does not answer");
        kept.GetProperty("error").GetString().ShouldBe("node quiet does not answer, and nothing was deleted");
        read.StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable);
    }

    [Fact]
    public async Task Node_that_was_not_heard_yet_or_fails_a_question_is_waited_for()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        var node = await QuietNode.AddAsync(host, isHeard: false);
        node.FallsSilent();
        var asked = 0;
        node.Tells = () =>
        {
            if (Interlocked.Increment(ref asked) == 1)
                throw new IOException("cut off");
        };

        var job = (await PostAsync(host.Client, $"/api/nodes/{node.Id}/backends/install", """{"backend":"plain"}""")).Body.GetProperty("jobID").GetString()!;
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/backends/jobs/{job}"), status => status.TryGetProperty("nodes", out _), what: "the job to come to the node");
        node.Says(new ModelHost.Protocol.NodeReport { Hostname = "quiet", Runtimes = { "process" } });
        var done = await EndAsync(host.Client, job);

        done.GetProperty("message").GetString().ShouldBe("completed", done.GetRawText());
        asked.ShouldBeGreaterThan(1);
    }

    [Fact]
    public async Task Folder_that_was_laid_by_hand_is_listed_and_stays()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        var folder = Directory.CreateDirectory(Path.Combine(host.Node.Data, "backends", "plain")).FullName;
        File.WriteAllText(Path.Combine(folder, "run.sh"), "#!/bin/sh\n");
        File.WriteAllText(Path.Combine(folder, "metadata.json"), """{"alias":"mine","version":"7"}""");

        var list = (await host.Client.JsonAsync("/backends")).EnumerateArray().ShouldHaveSingleItem();
        var force = (await PostAsync(host.Client, "/backends/apply?wait=true", """{"id":"plain","force":true}""")).Body.GetProperty("job");
        var (status, body) = await PostAsync(host.Client, "/api/nodes/1/backends/delete", """{"backend":"plain"}""");

        (list.GetProperty("IsSystem").GetBoolean(), list.GetProperty("Metadata").GetProperty("version").GetString()).ShouldBe((true, "7"));
        force.GetProperty("error").GetString().ShouldNotBeNull().ShouldContain("laid on the node by hand");
        status.ShouldBe(HttpStatusCode.Conflict);
        body.GetProperty("code").GetString().ShouldBe("backend.is_system");
        File.Exists(Path.Combine(folder, "run.sh")).ShouldBeTrue();
    }

    [Theory]
    [InlineData("/backends/apply", "{}", 400, "id: is required")]
    [InlineData("/backends/apply", """{"id":7}""", 400, "id")]
    [InlineData("/backends/apply", """{"id":"x","what":1}""", 400, "what: is no field of this request")]
    [InlineData("/backends/apply", """{"id":"x","version":"../y"}""", 400, "version: ")]
    [InlineData("/backends/apply", """{"id":"x","nodes":["nowhere"]}""", 400, "nodes: nowhere is none")]
    [InlineData("/backends/delete/..%2Fkeys", null, 400, "name: ")]
    [InlineData("/backends/delete/.staging", null, 400, "name: ")]
    [InlineData("/backends/delete/a%0Ab", null, 400, "name: ")]
    [InlineData("/backends/delete/plain?version=", null, 400, "version: is empty")]
    [InlineData("/backends/delete/plain?version=..%2Fx", null, 400, "version: ")]
    [InlineData("/api/nodes/1/backends/delete", """{"backend":"plain","version":""}""", 400, "version: is empty")]
    [InlineData("/api/nodes/1/backends/install", "{}", 400, "backend name or uri required")]
    [InlineData("/api/nodes/1/backends/install", """{"uri":"ftp://x/y"}""", 400, "uri: ")]
    [InlineData("/api/nodes/1/backends/install", """{"uri":"https://user:secret@x/y"}""", 400, "uri: ")]
    [InlineData("/api/nodes/1/backends/install", """{"uri":"https://x/y","name":"../z"}""", 400, "name: ")]
    [InlineData("/api/nodes/1/backends/install", """{"uri":"https://x/y","name":"z","alias":"/etc"}""", 400, "alias: ")]
    [InlineData("/api/nodes/1/backends/install", """{"uri":"https://x/y","backend":"z"}""", 400, "uri: ")]
    [InlineData("/api/nodes/1/backends/install", """{"backend":"z","backend_galleries":"[{"}""", 400, "backend_galleries: ")]
    [InlineData("/api/nodes/1/backends/install", """{"backend":"z","backend_galleries":"[{\"name\":\"a\",\"url\":\"file:///etc\"}]"}""", 400, "backend_galleries: ")]
    [InlineData("/api/nodes/1/backends/delete", "{}", 400, "backend: is required")]
    [InlineData("/api/nodes/1/backends/delete", """{"backend":"../../keys"}""", 400, "backend: ")]
    [InlineData("/api/nodes/1/backends/delete", """{"backend":"nothing"}""", 404, "is not installed")]
    [InlineData("/api/nodes/1/backends/upgrade", "{}", 400, "backend: is required")]
    [InlineData("/api/nodes/987/backends/delete", """{"backend":"x"}""", 404, "no node 987")]
    public async Task Wrong_requests_are_refused_by_the_name_of_the_field(string path, string? body, int status, string says)
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");

        using var answer = await host.Client.PostAsync(path, body is null ? null : new StringContent(body, System.Text.Encoding.UTF8, "application/json"), Ct);
        var text = JsonSerializer.Deserialize<JsonElement>(await answer.Content.ReadAsStringAsync(Ct));

        ((int)answer.StatusCode).ShouldBe(status, text.GetRawText());
        var message = path.StartsWith("/api/", StringComparison.Ordinal) ? text.GetProperty("detail").GetString() : text.GetProperty("error").GetProperty("message").GetString();
        message.ShouldNotBeNull().ShouldContain(says);
        message.ShouldNotContain("secret");
        (await host.Client.GetStringAsync("/backends/jobs", Ct)).ShouldBe("{}");
    }

    [Theory]
    [InlineData("- {name: '../../keys', uri: 'https://example.org/x.tar'}", "../../keys", "a name is 1 to")]
    [InlineData("- {name: nothing, description: d, capabilities: {amd: other}}", "nothing", "has no build for a node of the capability default")]
    [InlineData("- {name: lost, capabilities: {default: other}}", "lost", "which no gallery has")]
    [InlineData("- {name: loop, capabilities: {default: loop}}", "loop", "which no gallery has")]
    [InlineData("- {name: bad, uri: 'gopher://x'}", "bad", "uri: ")]
    [InlineData("- {name: wild, uri: 'https://example.org/x.tar', files: [{filename: '../../x', uri: 'https://example.org/x'}]}", "wild", "path: ")]
    [InlineData("- {name: odd, uri: 'vllm/vllm-openai:v1', recipe: {extends: ../x}}", "odd", "cannot be started as its gallery says")]
    [InlineData("- {name: local, uri: 'file:///etc/passwd'}", "local", "data folder")]
    public async Task Hostile_entries_are_failed_jobs_with_the_reason_and_nothing_on_the_disk(string index, string id, string says)
    {
        await using var gallery = await BackendGallery.StartAsync();
        gallery.Serve(index);
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");

        var job = (await PostAsync(host.Client, "/backends/apply?wait=true", JsonSerializer.Serialize(new { id }))).Body.GetProperty("job");

        job.GetProperty("error").GetString().ShouldNotBeNull().ShouldContain(says);
        (await host.Client.GetStringAsync("/backends", Ct)).ShouldBe("[]");
    }

    private static async Task<string?[]> NamesAsync(HttpClient client, int node) =>
        [.. (await client.JsonAsync($"/api/nodes/{node}/backends")).EnumerateArray().Select(one => one.GetProperty("name").GetString())];

    private static Task<JsonElement> EndAsync(HttpClient client, string job) =>
        Deadline.UntilAsync(() => client.JsonAsync($"/backends/jobs/{job}"), status => status.GetProperty("processed").GetBoolean(), seconds: 120, what: $"job {job} to end");

    private static async Task<(HttpStatusCode Status, JsonElement Body)> PostAsync(HttpClient client, string path, string? body)
    {
        using var answer = await client.PostAsync(path, body is null ? null : new StringContent(body, System.Text.Encoding.UTF8, "application/json"), Ct);
        return (answer.StatusCode, await answer.Content.ReadFromJsonAsync<JsonElement>(Ct));
    }
}
