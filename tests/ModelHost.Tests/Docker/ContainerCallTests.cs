using System.Net;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class ContainerCallTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_container_is_created_with_all_that_was_asked_for()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"Id":"abc","Warnings":["no swap limit"]}""", 201);
        using var client = new DockerClient(engine.Endpoint);

        var created = await client.CreateContainerAsync(
            new()
            {
                Image = "vllm/vllm-openai:v0.11.0",
                Entrypoint = ["vllm", "serve"],
                Command = ["Qwen/Qwen3-0.6B", "--port", "41000"],
                Env = new Dictionary<string, string> { ["HF_HOME"] = "/cache" },
                Labels = new Dictionary<string, string> { ["modelhost.deployment"] = "7" },
                Mounts = [new("/srv/hf", "/cache"), new("/srv/models", "/models", ReadOnly: true)],
                NetworkMode = "host",
                IpcMode = "host",
                Init = true,
                Gpus = new() { DeviceIds = ["0", "2"] },
                ShmSizeBytes = 1 << 30,
                MaxLogBytes = 1 << 20,
            },
            "modelhost-7", Ct);

        created.Id.ShouldBe("abc");
        created.Warnings.ShouldBe(["no swap limit"]);
        var call = engine.Calls.ShouldHaveSingleItem();
        call.ToString().ShouldBe("POST /containers/create?name=modelhost-7");
        JsonNode.DeepEquals(JsonNode.Parse(call.Body), JsonNode.Parse("""
            {
              "Image": "vllm/vllm-openai:v0.11.0",
              "Entrypoint": ["vllm", "serve"],
              "Cmd": ["Qwen/Qwen3-0.6B", "--port", "41000"],
              "Env": ["HF_HOME=/cache"],
              "Labels": {"modelhost.deployment": "7"},
              "HostConfig": {
                "Mounts": [
                  {"Type": "bind", "Source": "/srv/hf", "Target": "/cache", "ReadOnly": false},
                  {"Type": "bind", "Source": "/srv/models", "Target": "/models", "ReadOnly": true}
                ],
                "NetworkMode": "host",
                "IpcMode": "host",
                "Init": true,
                "DeviceRequests": [{"Driver": "", "Count": 0, "DeviceIDs": ["0", "2"], "Capabilities": [["gpu"]]}],
                "RestartPolicy": {"Name": "no"},
                "ShmSize": 1073741824,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "524288", "max-file": "2"}}
              }
            }
            """)).ShouldBeTrue(call.Body);
    }

    [Fact]
    public async Task What_is_not_asked_for_is_left_to_the_engine()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"Id":"abc","Warnings":null}""", 201);
        using var client = new DockerClient(engine.Endpoint);

        var created = await client.CreateContainerAsync(new() { Image = "busybox" }, null, Ct);

        created.Warnings.ShouldBeEmpty();
        var call = engine.Calls.ShouldHaveSingleItem();
        call.ToString().ShouldBe("POST /containers/create");
        call.Body.ShouldBe(
            """{"Image":"busybox","Env":[],"Labels":{},"HostConfig":{"Mounts":[],"Init":false,"RestartPolicy":{"Name":"no"}}}""");
    }

    [Fact]
    public async Task All_gpus_are_asked_for_by_count()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"Id":"abc"}""", 201);
        using var client = new DockerClient(engine.Endpoint);

        await client.CreateContainerAsync(new() { Image = "busybox", Gpus = new() }, null, Ct);

        JsonNode.Parse(engine.Calls.ShouldHaveSingleItem().Body)!["HostConfig"]!["DeviceRequests"]!.ToJsonString()
            .ShouldBe("""[{"Driver":"","Count":-1,"Capabilities":[["gpu"]]}]""");
    }

    [Fact]
    public async Task Podman_is_asked_through_its_own_api_and_for_gpus_by_their_cdi_names()
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.StatusCode = 201;
            await context.Response.WriteAsync("""{"Id":"abc","Warnings":[]}""");
        }, isPodman: true);
        using var client = new DockerClient(engine.Endpoint);

        await client.CreateContainerAsync(
            new()
            {
                Image = "vllm/vllm-openai:v0.11.0",
                Entrypoint = ["vllm", "serve"],
                Command = ["Qwen/Qwen3-0.6B"],
                Env = new Dictionary<string, string> { ["HF_HOME"] = "/cache" },
                Labels = new Dictionary<string, string> { ["modelhost.deployment"] = "7" },
                Mounts = [new("/srv/hf", "/cache"), new("/srv/models", "/models", ReadOnly: true)],
                NetworkMode = "host",
                IpcMode = "host",
                Gpus = new() { DeviceIds = ["0", "GPU-2"] },
                ShmSizeBytes = 1 << 30,
                MaxLogBytes = 1 << 20,
            },
            "modelhost-7", Ct);
        await client.CreateContainerAsync(new() { Image = "busybox", Gpus = new() }, null, Ct);

        var calls = engine.Calls.ToArray();
        calls.ShouldAllBe(call => call.ToString() == "POST /libpod/containers/create" && call.Version == "4.0.0");
        JsonNode.DeepEquals(JsonNode.Parse(calls[0].Body), JsonNode.Parse("""
            {
              "name": "modelhost-7",
              "image": "vllm/vllm-openai:v0.11.0",
              "entrypoint": ["vllm", "serve"],
              "command": ["Qwen/Qwen3-0.6B"],
              "env": {"HF_HOME": "/cache"},
              "labels": {"modelhost.deployment": "7"},
              "mounts": [
                {"type": "bind", "source": "/srv/hf", "destination": "/cache", "options": ["rbind", "rw"]},
                {"type": "bind", "source": "/srv/models", "destination": "/models", "options": ["rbind", "ro"]}
              ],
              "netns": {"nsmode": "host"},
              "ipcns": {"nsmode": "host"},
              "init": false,
              "devices": [{"path": "nvidia.com/gpu=0"}, {"path": "nvidia.com/gpu=GPU-2"}],
              "restart_policy": "no",
              "shm_size": 1073741824,
              "log_configuration": {"driver": "k8s-file", "size": 1048576},
              "resource_limits": {"pids": {"limit": -1}}
            }
            """)).ShouldBeTrue(calls[0].Body);
        JsonNode.Parse(calls[1].Body)!["devices"]!.ToJsonString().ShouldBe("""[{"path":"nvidia.com/gpu=all"}]""");
    }

    [Theory]
    [InlineData("creating container storage: the container name \"x\" is already in use by 5f. You have to remove that container", 409)]
    [InlineData("vllm/none:1: image not known", 404)]
    [InlineData("no space left on device", 500)]
    public async Task What_podman_refuses_with_500_has_the_status_that_docker_has_for_it(string message, int status)
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.StatusCode = 500;
            await context.Response.WriteAsJsonAsync(new { cause = "x", message, response = 500 });
        }, isPodman: true);
        using var client = new DockerClient(engine.Endpoint);

        var refusal = await Should.ThrowAsync<DockerException>(client.CreateContainerAsync(new() { Image = "busybox" }, "x", Ct));

        (refusal.StatusCode, refusal.EngineMessage).ShouldBe(((HttpStatusCode)status, message));
    }

    [Fact]
    public async Task Calls_go_to_the_documented_paths()
    {
        await using var engine = await HandMadeEngine.StartAsync(context =>
        {
            context.Response.StatusCode = 204;
            return Task.CompletedTask;
        });
        using var client = new DockerClient(engine.Endpoint);

        await client.StartContainerAsync("/web", Ct);
        await client.StopContainerAsync("web", TimeSpan.FromSeconds(9.2), Ct);
        await client.KillContainerAsync("web", "SIGKILL", Ct);
        await client.RemoveContainerAsync("web", force: true, Ct);
        await client.RemoveContainerAsync("web", force: false, Ct);

        engine.Calls.Select(c => c.ToString()).ShouldBe([
            "POST /containers/web/start",
            "POST /containers/web/stop?t=10",
            "POST /containers/web/kill?signal=SIGKILL",
            "DELETE /containers/web?force=1&v=1",
            "DELETE /containers/web?force=0&v=1",
        ]);
    }

    [Fact]
    public async Task Started_or_stopped_already_is_fine()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("", 304);
        using var client = new DockerClient(engine.Endpoint);

        await client.StartContainerAsync("web", Ct);
        await client.StopContainerAsync("web", TimeSpan.Zero, Ct);

        engine.Calls.Count.ShouldBe(2);
    }

    [Fact]
    public async Task Waiting_gives_the_exit_code()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"StatusCode":137,"Error":null}""");
        using var client = new DockerClient(engine.Endpoint);

        (await client.WaitContainerAsync("web", Ct)).ShouldBe(137);

        engine.Calls.ShouldHaveSingleItem().ToString().ShouldBe("POST /containers/web/wait?condition=not-running");
    }

    [Fact]
    public async Task A_wait_that_failed_says_why()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"StatusCode":-1,"Error":{"Message":"removal failed"}}""");
        using var client = new DockerClient(engine.Endpoint);

        (await Should.ThrowAsync<DockerException>(client.WaitContainerAsync("web", Ct))).EngineMessage.ShouldBe("removal failed");
    }

    [Fact]
    public async Task Containers_are_listed_in_every_state_by_label()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""
            [{"Id":"abc","Names":["/web","/other/web"],"Image":"busybox","ImageID":"sha256:1","State":"exited","Status":"Exited (0)","Created":1700000000,
              "Labels":{"a":"1"},"Ports":[]},
             {"Id":"def","Names":null,"Labels":null}]
            """);
        using var client = new DockerClient(engine.Endpoint);

        var listed = await client.ListContainersAsync(new Dictionary<string, string?> { ["a"] = "1", ["b c"] = null }, Ct);

        engine.Calls.ShouldHaveSingleItem().ToString().ShouldBe("""GET /containers/json?all=1&filters={"label":["a=1","b c"]}""");
        listed.Count.ShouldBe(2);
        listed[0].Names.ShouldBe(["web", "other/web"]);
        listed[0].ImageId.ShouldBe("sha256:1");
        listed[0].Created.ShouldBe(DateTimeOffset.FromUnixTimeSeconds(1700000000));
        listed[0].Labels["a"].ShouldBe("1");
        listed[1].Labels.ShouldBeEmpty();
    }

    [Fact]
    public async Task Details_are_read_from_what_the_engine_says()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""
            {"Id":"abc","Created":"2026-01-02T03:04:05.1234567Z","Name":"/web","Image":"sha256:1",
             "State":{"Status":"exited","Running":false,"Pid":0,"ExitCode":137,"OOMKilled":true,"Error":"","StartedAt":"2026-01-02T03:04:06.5Z",
                      "FinishedAt":"0001-01-01T00:00:00Z"},
             "Config":{"Image":"busybox:1","Env":["A=1"],"Cmd":["sleep","1"],"Entrypoint":null,"Labels":{"x":"y"},"Tty":false},
             "HostConfig":{"NetworkMode":"host","IpcMode":"private","RestartPolicy":{"Name":"","MaximumRetryCount":0},
                           "DeviceRequests":[{"Driver":"","Count":0,"DeviceIDs":["0","2"],"Capabilities":[["gpu"]],"Options":{}}]},
             "Mounts":[{"Type":"bind","Source":"/a","Destination":"/b","RW":false},{"Type":"volume","Source":"/v","Destination":"/v","RW":true}]}
            """);
        using var client = new DockerClient(engine.Endpoint);

        var details = await client.InspectContainerAsync("web", Ct);

        details.Name.ShouldBe("web");
        details.ImageName.ShouldBe("busybox:1");
        details.Created.ShouldBe(new DateTimeOffset(2026, 1, 2, 3, 4, 5, TimeSpan.Zero).AddTicks(1234567));
        details.State.ShouldBe(new ContainerState
        {
            Status = "exited",
            ExitCode = 137,
            OomKilled = true,
            StartedAt = new DateTimeOffset(2026, 1, 2, 3, 4, 6, 500, TimeSpan.Zero),
        });
        details.Mounts.ShouldBe([new BindMount("/a", "/b", ReadOnly: true)]);
        details.GpuDeviceIds.ShouldBe(["0", "2"]);
        details.RestartPolicy.ShouldBe("no");
        details.Command.ShouldBe(["sleep", "1"]);
        details.Entrypoint.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("../../images/json")]
    [InlineData("..")]
    [InlineData(".")]
    [InlineData("")]
    [InlineData("/")]
    [InlineData("a/../b")]
    [InlineData("a\nb")]
    public async Task A_name_that_would_lead_elsewhere_is_not_sent(string id)
    {
        await using var engine = await HandMadeEngine.StartAsync();
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.InspectContainerAsync(id, Ct));

        ((int?)failure.StatusCode).ShouldBe(400);
        engine.Calls.ShouldBeEmpty();
    }

    [Fact]
    public async Task Odd_characters_of_a_name_stay_in_the_name()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"message":"No such container"}""", 404);
        using var client = new DockerClient(engine.Endpoint);

        await Should.ThrowAsync<DockerException>(client.StartContainerAsync("a?b#c%2e d", Ct));

        engine.Calls.ShouldHaveSingleItem().Path.ShouldBe("/containers/a%3Fb%23c%252e%20d/start");
    }
}
