using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;

namespace ModelHost.Tests.Routing;

public sealed class RouteTableTests
{
    [Fact]
    public void A_model_is_found_by_served_name_model_name_and_adapter()
    {
        var table = new RouteTable([Route(1, "org/model", "chat", lora: ["sql"])]);

        table.Find("chat").Route!.DeploymentId.ShouldBe(1);
        table.Find("org/model").Route!.DeploymentId.ShouldBe(1);
        table.Find("sql").Route!.DeploymentId.ShouldBe(1);
        table.Names.ShouldBe(["chat", "sql"]);
    }

    [Fact]
    public void A_served_name_beats_a_model_name_and_that_an_adapter()
    {
        var table = new RouteTable([Route(1, "other", lora: ["x"]), Route(2, "x"), Route(3, "y", "x"), Route(4, "z", lora: ["y"])]);

        table.Find("x").Route!.DeploymentId.ShouldBe(3);
        table.Find("y").Route!.DeploymentId.ShouldBe(3);
    }

    [Fact]
    public void Two_deployments_of_one_model_are_ambiguous_by_its_name_only()
    {
        var table = new RouteTable([Route(1, "m", "b"), Route(2, "m", "a"), Route(3, "m")]);

        var answer = table.Find("m");

        (answer.Route, answer.Miss).ShouldBe((null, RouteMiss.Ambiguous));
        answer.Candidates.ShouldBe(["a", "b", "m"]);
        table.Find("a").Route!.DeploymentId.ShouldBe(2);
    }

    [Fact]
    public void Only_what_can_be_forwarded_to_is_ambiguous() =>
        new RouteTable([Route(1, "m", "a"), Route(2, "m", "b", DeploymentStatus.Loading), Route(3, "m", "c", DeploymentStatus.Unreachable)])
            .Find("m").Route!.DeploymentId.ShouldBe(1);

    [Fact]
    public void A_tier_that_serves_beats_a_higher_one_that_loads() =>
        new RouteTable([Route(1, "a", "x", DeploymentStatus.Loading), Route(2, "x")]).Find("x").Route!.DeploymentId.ShouldBe(2);

    [Theory]
    [InlineData(DeploymentStatus.Starting, RouteMiss.Loading, false, true)]
    [InlineData(DeploymentStatus.Loading, RouteMiss.Loading, false, true)]
    [InlineData(DeploymentStatus.Stopping, RouteMiss.Loading, false, true)]
    [InlineData(DeploymentStatus.Stopped, RouteMiss.Loading, true, true)]
    [InlineData(DeploymentStatus.Error, RouteMiss.Loading, true, true)]
    [InlineData(DeploymentStatus.Expired, RouteMiss.NotFound, false, false)]
    [InlineData(DeploymentStatus.Unreachable, RouteMiss.Unreachable, false, false)]
    public void What_is_started_on_demand_keeps_its_names(DeploymentStatus status, RouteMiss miss, bool isStartable, bool isListed)
    {
        var table = new RouteTable([Route(1, "m", "chat", status, ["sql"]) with { StartsOnDemand = true }]);

        foreach (var name in (string[])["m", "chat", "sql"])
            (table.Find(name).Miss, table.Find(name).Startable.Count).ShouldBe((miss, isStartable ? 1 : 0), name);
        table.Names.ShouldBe(isListed ? ["chat", "sql"] : []);
    }

    [Fact]
    public void Of_what_rests_only_one_name_is_started_and_nothing_beside_what_comes()
    {
        static ModelRoute Resting(int id, string name) => Route(id, "m", name, DeploymentStatus.Stopped) with { StartsOnDemand = true };

        new RouteTable([Resting(1, "a"), Resting(2, "a")]).Find("m").Startable.Select(route => route.DeploymentId).ShouldBe([1, 2]);
        new RouteTable([Resting(1, "a"), Resting(2, "b")]).Find("m").Miss.ShouldBe(RouteMiss.Ambiguous);
        new RouteTable([Resting(1, "a"), Route(2, "m", "b")]).Find("m").Route!.DeploymentId.ShouldBe(2);
        new RouteTable([Resting(1, "a"), Route(2, "m", "b", DeploymentStatus.Loading)]).Find("m").Startable.ShouldBeEmpty();
        new RouteTable([Resting(1, "a"), Resting(2, "b")]).Find("m", RouteScope.Of(null, ["b"])).Startable.Select(route => route.DeploymentId).ShouldBe([2]);
    }

    [Theory]
    [InlineData(DeploymentStatus.Starting, RouteMiss.Loading)]
    [InlineData(DeploymentStatus.Loading, RouteMiss.Loading)]
    [InlineData(DeploymentStatus.Unreachable, RouteMiss.Unreachable)]
    [InlineData(DeploymentStatus.Stopping, RouteMiss.NotFound)]
    [InlineData(DeploymentStatus.Stopped, RouteMiss.NotFound)]
    [InlineData(DeploymentStatus.Expired, RouteMiss.NotFound)]
    [InlineData(DeploymentStatus.Error, RouteMiss.NotFound)]
    public void What_does_not_serve_says_why(DeploymentStatus status, RouteMiss miss)
    {
        var table = new RouteTable([Route(1, "m", "chat", status, ["sql"]), Route(2, "other")]);

        foreach (var name in (string[])["m", "chat", "sql"])
        {
            var answer = table.Find(name);
            (answer.Route, answer.Miss).ShouldBe((null, miss));
            answer.Candidates.ShouldBe(miss == RouteMiss.NotFound ? ["other"] : []);
        }
        table.Names.ShouldBe(["other"]);
    }

    [Fact]
    public void Loading_is_said_before_unreachable() =>
        new RouteTable([Route(1, "m", "a", DeploymentStatus.Unreachable), Route(2, "m", "b", DeploymentStatus.Loading)]).Find("m").Miss.ShouldBe(RouteMiss.Loading);

    [Fact]
    public void A_sleeping_model_is_routable() =>
        new RouteTable([Route(1, "m", null, DeploymentStatus.PausedRam)]).Find("m").Route.ShouldNotBeNull();

    [Fact]
    public void A_running_model_whose_engine_does_not_answer_now_is_coming() =>
        new RouteTable([Route(1, "m") with { EngineUrl = null }]).Find("m").Miss.ShouldBe(RouteMiss.Loading);

    [Fact]
    public void An_unknown_name_lists_what_is_there_and_letter_case_counts()
    {
        var answer = new RouteTable([Route(2, "b"), Route(1, "a", "Chat")]).Find("chat");

        (answer.Route, answer.Miss).ShouldBe((null, RouteMiss.NotFound));
        answer.Candidates.ShouldBe(["Chat", "b"]);
    }

    [Fact]
    public void A_name_that_repeats_within_a_deployment_is_not_ambiguous() =>
        new RouteTable([Route(1, "m", "m", lora: ["m"])]).Find("m").Route!.DeploymentId.ShouldBe(1);

    [Fact]
    public void The_empty_table_knows_nothing() => RouteTable.Empty.Find("m").Miss.ShouldBe(RouteMiss.NotFound);

    private static ModelRoute Route(int id, string model, string? served = null, DeploymentStatus status = DeploymentStatus.Running, string[]? lora = null) =>
        new(id, status, served, model, lora ?? [], "tests", DateTimeOffset.UnixEpoch, new Uri("http://127.0.0.1:41000"), "key");
}
