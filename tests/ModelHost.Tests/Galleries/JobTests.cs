using System.Collections.Concurrent;
using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;

namespace ModelHost.Tests.Galleries;

/// <summary>Jobs last, run in their order, stay cancelled and are resumed.</summary>
public sealed class JobTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_job_is_shown_in_the_documented_shape_from_queued_to_completed()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler);
        var job = await AddAsync(host, "phi");
        await handler.BegunAsync("phi");
        var running = await host.Client.GetStringAsync($"/models/jobs/{job.Uid}", Ct);
        handler.Context("phi").File("phi.gguf.partial", 1_288_490_189, 2_576_980_378, 50);
        handler.Context("phi").Node(new JobNode { NodeId = "1", NodeName = "a", Status = "downloading", FileName = "phi.gguf.partial", Current = "1.2 GiB", Total = "2.4 GiB", Percentage = 50, Phase = "downloading" });
        var half = await host.Client.GetStringAsync($"/backends/jobs/{job.Uid}", Ct);
        handler.End("phi");
        await job.Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);

        (running, half) = (Documented(running), Documented(half));
        running.ShouldBe("""{"deletion":false,"file_name":"","processed":false,"message":"processing test: phi","progress":0,"phase":"queued","file_size":"","downloaded_size":"","gallery_element_name":"phi","cancelled":false,"cancellable":true}""");
        half.ShouldBe("""{"deletion":false,"file_name":"phi.gguf.partial","processed":false,"message":"processing file: phi.gguf.partial. Total: 2.4 GiB. Current: 1.2 GiB","progress":50,"phase":"downloading","current_bytes":1288490189,"total_bytes":2576980378,"file_size":"2.4 GiB","downloaded_size":"1.2 GiB","gallery_element_name":"phi","cancelled":false,"cancellable":true,"nodes":[{"node_id":"1","node_name":"a","status":"downloading","file_name":"phi.gguf.partial","current":"1.2 GiB","total":"2.4 GiB","percentage":50,"phase":"downloading"}]}""");
        const string done = """{"deletion":false,"file_name":"","processed":true,"message":"completed","progress":100,"file_size":"","downloaded_size":"","gallery_element_name":"phi","cancelled":false,"cancellable":false,"nodes":[{"node_id":"1","node_name":"a","status":"downloading","file_name":"phi.gguf.partial","current":"1.2 GiB","total":"2.4 GiB","percentage":50,"phase":"downloading"}]}""";
        Documented(await host.Client.GetStringAsync($"/models/jobs/{job.Uid}", Ct)).ShouldBe(done);
        Documented(await host.Client.GetStringAsync("/backends/jobs", Ct)).ShouldBe($$"""{"{{job.Uid}}":{{done}}}""");
    }

    [Fact]
    public async Task What_a_job_does_and_when_is_told()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler);
        var before = DateTimeOffset.UtcNow;
        var job = await AddAsync(host, "phi");
        await handler.BegunAsync("phi");
        var running = await host.Client.JsonAsync($"/models/jobs/{job.Uid}");
        handler.End("phi");
        var ended = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/models/jobs/{job.Uid}"), found => found.TryGetProperty("finished_at", out _));

        running.GetProperty("kind").GetString().ShouldBe("test.run");
        running.TryGetProperty("finished_at", out _).ShouldBeFalse();
        var created = running.GetProperty("created_at").GetDateTimeOffset();
        created.ShouldBeInRange(before.AddSeconds(-1), DateTimeOffset.UtcNow);
        ended.GetProperty("created_at").GetDateTimeOffset().ShouldBe(created);
        ended.GetProperty("finished_at").GetDateTimeOffset().ShouldBeGreaterThanOrEqualTo(created);
    }

    [Fact]
    public async Task The_message_names_nodes_that_are_waited_for_as_long_as_they_are()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler);
        var job = await AddAsync(host, "phi");
        await handler.BegunAsync("phi");
        var context = handler.Context("phi");
        JobNode Node(string id, string? error) => new() { NodeId = id, NodeName = $"gpu-{id}", Status = "downloading", Error = error };
        async Task<string?> MessageAsync() => (await host.Client.JsonAsync($"/models/jobs/{job.Uid}")).GetProperty("message").GetString();

        context.File("w.gguf", 1024, 2048, 50);
        context.Node(Node("1", null));
        context.Node(Node("2", JobNode.Silent));
        var silent = await MessageAsync();
        context.File("w.gguf", 2048, 2048, 50);
        var still = await MessageAsync();
        context.Node(Node("2", null));
        var back = await MessageAsync();
        handler.End("phi");
        await job.Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);

        silent.ShouldBe("processing file: w.gguf. Total: 2.0 KiB. Current: 1.0 KiB; gpu-2: the node does not answer; it is waited for");
        still.ShouldBe("processing file: w.gguf. Total: 2.0 KiB. Current: 2.0 KiB; gpu-2: the node does not answer; it is waited for");
        back.ShouldBe("processing file: w.gguf. Total: 2.0 KiB. Current: 2.0 KiB");
        job.Status.Message.ShouldBe("completed");
    }

    // without what is told beside it
    private static string Documented(string status) => Regex.Replace(status, ",\"kind\":\"test.run\",\"created_at\":\"[^\"]+\"(,\"finished_at\":\"[^\"]+\")?", "");

    [Fact]
    public async Task A_failure_is_told_with_its_reason_and_an_unknown_id_as_documented()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler);
        (await host.Client.GetStringAsync("/models/jobs", Ct)).ShouldBe("{}");
        var job = await AddAsync(host, "phi");
        handler.End("phi", new Failure(FailureKind.Conflict, "x", "no such thing"));
        var status = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/models/jobs/{job.Uid}"), found => found.GetProperty("processed").GetBoolean());

        (status.GetProperty("error").GetString(), status.GetProperty("message").GetString(), status.GetProperty("cancellable").GetBoolean()).ShouldBe(("no such thing", "error: no such thing", false));
        foreach (var (method, path) in ((HttpMethod, string)[])[(HttpMethod.Get, "/models/jobs/x"), (HttpMethod.Get, $"/backends/jobs/{Guid.NewGuid()}"), (HttpMethod.Post, "/models/jobs/x/cancel")])
        {
            using var unknown = await host.Client.SendAsync(new HttpRequestMessage(method, path), Ct);
            (unknown.StatusCode, await unknown.Content.ReadAsStringAsync(Ct)).ShouldBe((HttpStatusCode.NotFound, """{"error":{"code":404,"message":"could not find any status for ID","type":""}}"""));
        }
    }

    [Fact]
    public async Task What_is_cancelled_stays_cancelled_whatever_its_work_does_then()
    {
        var handler = new Handler();
        using var node = new TestNode();
        string stubborn, queued;
        await using (var host = await StartAsync(handler, node, "Galleries:ParallelJobs=1"))
        {
            (stubborn, queued) = ((await AddAsync(host, "stubborn")).Uid, (await AddAsync(host, "queued")).Uid);
            await handler.BegunAsync("stubborn");

            foreach (var uid in (string[])[queued, stubborn])
            {
                using var answer = await host.Client.PostAsync($"/models/jobs/{uid}/cancel", null, Ct);
                answer.StatusCode.ShouldBe(HttpStatusCode.OK);
                (await ShownAsync(host, uid)).ShouldBe("cancelled True True");
            }
            using var twice = await host.Client.PostAsync($"/models/jobs/{stubborn}/cancel", null, Ct);
            twice.StatusCode.ShouldBe(HttpStatusCode.Conflict);
            // its work does not care, says that it is well on its way, and ends with an error
            handler.Context("stubborn").File("x", 1, 2, 50);
            (await handler.Context("stubborn").TryCommitAsync("{}", CancellationToken.None)).ShouldBeFalse();
            handler.End("stubborn", new Failure(FailureKind.Unavailable, "x", "context cancelled"));
            var next = await AddAsync(host, "next");
            handler.End("next");
            await next.Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);
            (await ShownAsync(host, stubborn)).ShouldBe("cancelled True True");
            handler.Begun.ShouldBe(["stubborn", "next"]);
        }
        await using var again = await StartAsync(handler, node);
        (await ShownAsync(again, stubborn)).ShouldBe("cancelled True True");
        (await ShownAsync(again, queued)).ShouldBe("cancelled True True");
    }

    [Fact]
    public async Task What_is_cancelled_by_one_who_has_gone_is_cancelled_for_good()
    {
        var handler = new Handler();
        using var node = new TestNode();
        string uid;
        await using (var host = await StartAsync(handler, node))
        {
            uid = (await AddAsync(host, "phi")).Uid;
            await handler.BegunAsync("phi");
            handler.Context("phi").Node(new JobNode { NodeId = "1", NodeName = "a", Status = "downloading", Phase = "downloading" });
            handler.Context("phi").Node(new JobNode { NodeId = "2", NodeName = "b", Status = "success" });

            await host.Services.GetRequiredService<JobBook>().CancelAsync(uid, new CancellationToken(canceled: true));
        }
        await using var again = await StartAsync(handler, node);
        (await ShownAsync(again, uid)).ShouldBe("cancelled True True");
        (await again.Client.JsonAsync($"/models/jobs/{uid}")).GetProperty("nodes").EnumerateArray().Select(one => (one.GetProperty("status").GetString(), one.TryGetProperty("phase", out _)))
            .ShouldBe([("error", false), ("success", false)]);
        handler.Begun.ShouldBe(["phi"]);
    }

    [Theory]
    [InlineData("PUT", "/models/jobs")]
    [InlineData("GET", "/models/apply")]
    [InlineData("GET", "/models/delete/phi")]
    [InlineData("POST", "/models/jobs/x")]
    [InlineData("GET", "/models/jobs/x/cancel")]
    [InlineData("DELETE", "/backends/upgrade/vllm")]
    public async Task A_known_path_with_another_method_is_told_as_such(string method, string path)
    {
        await using var host = await StartAsync(new Handler());

        using var answer = await host.Client.SendAsync(new HttpRequestMessage(new HttpMethod(method), path), Ct);

        (answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct)).ShouldBe((HttpStatusCode.MethodNotAllowed, """{"error":{"code":405,"message":"Method Not Allowed","type":""}}"""));
    }

    [Fact]
    public async Task Beyond_the_point_of_no_return_nothing_is_cancelled()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler);
        var job = await AddAsync(host, "phi");
        await handler.BegunAsync("phi");
        (await handler.Context("phi").TryCommitAsync("{}", Ct)).ShouldBeTrue();

        using var refused = await host.Client.PostAsync($"/models/jobs/{job.Uid}/cancel", null, Ct);
        handler.End("phi");
        await job.Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);

        refused.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        job.Status.Message.ShouldBe("completed");
    }

    [Fact]
    public async Task Some_run_at_a_time_and_those_of_one_subject_one_after_another()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler, null, "Galleries:ParallelJobs=2");
        foreach (var (element, subject) in ((string, string)[])[("a1", "a"), ("a2", "a"), ("b1", "b"), ("c1", "c")])
            await AddAsync(host, element, subject);
        await handler.BegunAsync("a1");
        await handler.BegunAsync("b1");
        handler.End("b1");
        await handler.BegunAsync("c1");
        handler.Begun.ShouldNotContain("a2");
        handler.End("a1");
        await handler.BegunAsync("a2");

        handler.Begun.ShouldBe(["a1", "b1", "c1", "a2"], ignoreOrder: true);
        handler.End("c1");
        handler.End("a2");
        await Deadline.UntilAsync(() => host.Services.GetRequiredService<JobBook>().All.All(job => job.Status.Processed));
    }

    [Fact]
    public async Task Jobs_are_resumed_after_a_restart_in_their_order_and_given_up_when_they_are_interrupted_again_and_again()
    {
        var handler = new Handler();
        using var node = new TestNode();
        await using (var host = await StartAsync(handler, node, "Galleries:ParallelJobs=1"))
        {
            await AddAsync(host, "first");
            await AddAsync(host, "second");
            await handler.BegunAsync("first");
        }
        handler = new Handler();
        await using (var host = await StartAsync(handler, node, "Galleries:ParallelJobs=1"))
        {
            handler.End("first");
            handler.End("second");
            await Deadline.UntilAsync(() => host.Services.GetRequiredService<JobBook>().All.All(job => job.Status.Message == "completed"));
            handler.Begun.ShouldBe(["first", "second"]);
            handler.Requests["second"].ShouldBe("""{"of":"second"}""");
            await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
            // how a job ended is shown before it is stored, which would undo what follows
            await Deadline.UntilAsync(() => db.Jobs.CountAsync(job => job.State == JobState.Done, Ct), done => done == 2, what: "both ends to be stored");
            await db.Jobs.ExecuteUpdateAsync(job => job.SetProperty(j => j.Attempts, 5).SetProperty(j => j.State, JobState.Running).SetProperty(j => j.FinishedAt, (DateTimeOffset?)null), Ct);
        }
        await using var last = await StartAsync(new Handler(), node);
        await Deadline.UntilAsync(() => last.Services.GetRequiredService<JobBook>().All.All(job => job.Status.Error?.Contains("interrupted", StringComparison.Ordinal) == true));
    }

    [Fact]
    public async Task A_job_whose_calls_break_as_the_host_ends_goes_on_after_a_restart()
    {
        using var node = new TestNode();
        var handler = new Handler();
        string uid;
        await using (var host = await StartAsync(handler, node))
        {
            uid = (await AddAsync(host, "brittle")).Uid;
            await handler.BegunAsync("brittle");
        }

        await using var again = await StartAsync(handler, node);
        await Deadline.UntilAsync(() => handler.Begun.Count == 2, what: "it to begin again");
        handler.End("brittle");

        await Deadline.UntilAsync(() => again.Client.JsonAsync($"/models/jobs/{uid}"), job => job.GetProperty("message").GetString() == "completed", what: "its end");
    }

    [Fact]
    public async Task A_job_past_the_point_of_no_return_is_past_it_after_a_restart_and_says_so_when_it_is_given_up()
    {
        var handler = new Handler();
        using var node = new TestNode();
        string uid;
        await using (var host = await StartAsync(handler, node))
        {
            uid = (await AddAsync(host, "phi")).Uid;
            await handler.BegunAsync("phi");
            handler.Context("phi").Node(new JobNode { NodeId = "1", NodeName = "a", Status = "success" });
            (await handler.Context("phi").TryCommitAsync("""{"decided":true}""", Ct)).ShouldBeTrue();
        }
        handler = new Handler();
        await using (var host = await StartAsync(handler, node))
        {
            await handler.BegunAsync("phi");
            using var refused = await host.Client.PostAsync($"/models/jobs/{uid}/cancel", null, Ct);
            var job = await host.Client.JsonAsync($"/models/jobs/{uid}");

            refused.StatusCode.ShouldBe(HttpStatusCode.Conflict);
            handler.Requests["phi"].ShouldBe("""{"decided":true}""");
            handler.Context("phi").IsResumed.ShouldBeTrue();
            (job.GetProperty("committed").GetBoolean(), job.GetProperty("cancellable").GetBoolean(), job.GetProperty("nodes")[0].GetProperty("node_name").GetString()).ShouldBe((true, false, "a"));
            await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
            await db.Jobs.ExecuteUpdateAsync(row => row.SetProperty(j => j.Attempts, 5), Ct);
        }
        await using var last = await StartAsync(new Handler(), node);
        var given = await Deadline.UntilAsync(() => last.Client.JsonAsync($"/models/jobs/{uid}"), job => job.GetProperty("processed").GetBoolean());

        given.GetProperty("error").GetString().ShouldBe("it was interrupted 5 times, and is not tried again; it was putting what it had into its place, so that some nodes may have the new and others the old: have it installed again");
        given.TryGetProperty("committed", out _).ShouldBeFalse();
    }

    [Fact]
    public async Task A_broken_handler_is_a_failed_job_and_tells_nothing_of_the_inside()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler);
        var job = await AddAsync(host, "phi");
        handler.Break("phi", new InvalidOperationException("a secret of the inside"));
        await job.Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);

        job.Status.Message.ShouldStartWith("error: something went wrong");
        (await host.Client.GetStringAsync("/models/jobs", Ct)).ShouldNotContain("secret");
        handler.End("next");
        await (await AddAsync(host, "next")).Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);
    }

    [Fact]
    public async Task Outcomes_are_forgotten_when_there_are_too_many()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler, null, "Galleries:MaxKeptJobs=2", "Galleries:ParallelJobs=1");
        foreach (var element in (string[])["a", "b", "c", "d"])
        {
            handler.End(element);
            await (await AddAsync(host, element)).Ended.WaitAsync(TimeSpan.FromSeconds(30), Ct);
        }

        await Deadline.UntilAsync(async () => (await host.Client.JsonAsync("/models/jobs")).EnumerateObject().Select(job => job.Value.GetProperty("gallery_element_name").GetString()!).ToArray(),
            left => left is ["c", "d"]);
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        (await db.Jobs.CountAsync(Ct)).ShouldBe(2);
    }

    [Fact]
    public async Task A_full_queue_takes_no_more()
    {
        var handler = new Handler();
        await using var host = await StartAsync(handler, null, "Galleries:MaxQueuedJobs=1", "Galleries:ParallelJobs=1");
        await AddAsync(host, "a");
        await handler.BegunAsync("a");
        await AddAsync(host, "b");

        (await host.Services.GetRequiredService<JobBook>().AddAsync(Request("c", "c"), Ct)).Failure!.Code.ShouldBe("jobs.full");
    }

    private static JobRequest Request(string element, string subject) => new("test.run", subject, element, $$"""{"of":"{{element}}"}""");

    private static Task<ControlPlane> StartAsync(Handler handler, TestNode? node = null, params string[] configuration) =>
        ControlPlane.StartAsync(node, configure: services => services.AddSingleton<IJobHandler>(handler), configuration: configuration);

    private static async Task<JobEntry> AddAsync(ControlPlane host, string element, string? subject = null) =>
        (await host.Services.GetRequiredService<JobBook>().AddAsync(Request(element, subject ?? element), Ct)).Match(job => job, failure => throw new InvalidOperationException(failure.Detail));

    private static async Task<string> ShownAsync(ControlPlane host, string uid)
    {
        JsonElement Of(JsonElement status, string name) => status.GetProperty(name);
        var status = await host.Client.JsonAsync($"/models/jobs/{uid}");
        return $"{Of(status, "message")} {Of(status, "cancelled")} {Of(status, "processed")}";
    }

    [Fact]
    public async Task One_whose_run_has_just_ended_has_nothing_to_give_up()
    {
        var job = new JobEntry(new Job { Uid = "u", Kind = "test.run", Subject = "s", Element = "e", Request = "{}", Status = "{}" }, new JobStatus());
        using (var run = new CancellationTokenSource())
            job.TryBegin(run).ShouldBeTrue();

        await job.CancelAsync();
    }

    /// <summary>Does what the test says, element by element. One called <c>stubborn</c> does not hear of its end.</summary>
    private sealed class Handler : IJobHandler
    {
        private readonly ConcurrentQueue<string> _begun = new();
        private readonly ConcurrentDictionary<string, TaskCompletionSource<Failure?>> _ends = new();
        private readonly ConcurrentDictionary<string, JobContext> _contexts = new();

        public string Kind => "test.run";

        public IReadOnlyList<string> Begun => [.. _begun];

        public ConcurrentDictionary<string, string> Requests { get; } = new();

        public JobContext Context(string element) => _contexts[element];

        public void End(string element, Failure? failure = null) => Of(element).TrySetResult(failure);

        public void Break(string element, Exception exception) => Of(element).TrySetException(exception);

        public Task BegunAsync(string element) => Deadline.UntilAsync(() => _contexts.ContainsKey(element), what: $"{element} to begin");

        public Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken)
        {
            Requests[job.Element] = job.Request;
            _begun.Enqueue(job.Element);
            _contexts[job.Element] = job;
            return job.Element switch
            {
                "stubborn" => Of(job.Element).Task,
                "brittle" => BreakAsync(Of(job.Element).Task.WaitAsync(cancellationToken)),
                _ => Of(job.Element).Task.WaitAsync(cancellationToken),
            };
        }

        private static async Task<Failure?> BreakAsync(Task<Failure?> work)
        {
            try
            {
                return await work;
            }
            catch (OperationCanceledException e)
            {
                throw new IOException("cut off", e);
            }
        }

        private TaskCompletionSource<Failure?> Of(string element) => _ends.GetOrAdd(element, _ => new(TaskCreationOptions.RunContinuationsAsynchronously));
    }
}
