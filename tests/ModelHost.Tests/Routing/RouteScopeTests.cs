using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;

namespace ModelHost.Tests.Routing;

/// <summary>Routing for keys that are not for everything.</summary>
public sealed class RouteScopeTests
{
    private static readonly ModelRoute[] Served =
    [
        Route(1, "org/model", "chat", lora: ["sql"]),
        Route(2, "org/other", "code"),
        Route(3, "org/loading", "slow", DeploymentStatus.Loading),
        Route(4, "org/away", "away", DeploymentStatus.Unreachable),
        Route(5, "org/leaving", "leaving", DeploymentStatus.Stopping),
    ];

    [Theory]
    // by deployment
    [InlineData("uid-1", null, "chat", "1")]
    [InlineData("uid-1", null, "org/model", "1")]
    [InlineData("uid-1", null, "sql", "1")]
    [InlineData("uid-1", null, "code", "Forbidden")]
    [InlineData("uid-1", null, "org/other", "Forbidden")]
    [InlineData("uid-2", null, "sql", "Forbidden")]
    [InlineData("uid-1", null, "nobody", "NotFound")]
    [InlineData("uid-1", null, "slow", "Forbidden")]
    [InlineData("uid-1", null, "away", "Forbidden")]
    [InlineData("uid-1", null, "leaving", "NotFound")]
    [InlineData("uid-3", null, "slow", "Loading")]
    [InlineData("uid-4", null, "away", "Unreachable")]
    [InlineData("uid-5", null, "leaving", "NotFound")]
    [InlineData("uid-1,uid-2", null, "code", "2")]
    [InlineData("", null, "chat", "Forbidden")]
    [InlineData("", null, "nobody", "NotFound")]
    [InlineData("UID-1", null, "chat", "Forbidden")]
    // by name: a deployment by both of its own, an adapter by its own alone
    [InlineData(null, "chat", "chat", "1")]
    [InlineData(null, "chat", "org/model", "1")]
    [InlineData(null, "org/model", "chat", "1")]
    [InlineData(null, "chat", "sql", "Forbidden")]
    [InlineData(null, "sql", "sql", "1")]
    [InlineData(null, "sql", "chat", "Forbidden")]
    [InlineData(null, "Chat", "chat", "Forbidden")]
    [InlineData(null, "chat", "nobody", "NotFound")]
    [InlineData(null, "nobody", "nobody", "NotFound")]
    [InlineData(null, "", "chat", "Forbidden")]
    // both limits hold
    [InlineData("uid-1", "chat", "chat", "1")]
    [InlineData("uid-2", "chat", "chat", "Forbidden")]
    [InlineData("uid-1", "code", "chat", "Forbidden")]
    // none
    [InlineData(null, null, "chat", "1")]
    [InlineData(null, null, "slow", "Loading")]
    public void A_name_leads_where_the_scope_allows(string? deployments, string? models, string model, string expected)
    {
        var answer = new RouteTable(Served).Find(model, Scope(deployments, models));

        (answer.Route?.DeploymentId.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? answer.Miss.ToString()).ShouldBe(expected);
    }

    [Fact]
    public void What_is_out_of_scope_hides_nothing_in_it()
    {
        var table = new RouteTable([Route(1, "m", "x"), Route(2, "x"), Route(3, "y", lora: ["x"])]);

        table.Find("x").Route!.DeploymentId.ShouldBe(1);
        table.Find("x", Scope("uid-2", null)).Route!.DeploymentId.ShouldBe(2);
        table.Find("x", Scope("uid-3", null)).Route!.DeploymentId.ShouldBe(3);
        table.Find("x", Scope("uid-2,uid-3", null)).Route!.DeploymentId.ShouldBe(2);
    }

    [Fact]
    public void Only_what_is_in_scope_is_ambiguous_and_only_that_is_named()
    {
        var table = new RouteTable([Route(1, "m", "a"), Route(2, "m", "b"), Route(3, "m", "c")]);

        table.Find("m", Scope("uid-1", null)).Route!.DeploymentId.ShouldBe(1);
        var answer = table.Find("m", Scope("uid-1,uid-3", null));
        (answer.Route, answer.Miss).ShouldBe((null, RouteMiss.Ambiguous));
        answer.Candidates.ShouldBe(["a", "c"]);
    }

    [Fact]
    public void One_that_loads_in_scope_is_waited_for_although_another_serves_outside() =>
        new RouteTable([Route(1, "m", "a"), Route(2, "m", "b", DeploymentStatus.Loading)]).Find("m", Scope("uid-2", null)).Miss.ShouldBe(RouteMiss.Loading);

    [Fact]
    public void Names_that_are_told_are_those_in_scope()
    {
        var table = new RouteTable(Served);

        table.Find("nobody", Scope("uid-1", null)).Candidates.ShouldBe(["chat", "sql"]);
        table.Find("nobody", Scope(null, "sql")).Candidates.ShouldBe(["sql"]);
        table.Find("code", Scope("uid-1", null)).Candidates.ShouldBeEmpty();
        table.NamesIn(Scope("uid-2", null)).ShouldBe(["code"]);
        table.NamesIn(null).ShouldBe(table.Names);
    }

    [Fact]
    public void A_route_without_a_uid_is_in_no_scope_of_deployments() =>
        new RouteTable([Route(1, "m") with { DeploymentUid = "" }]).Find("m", Scope("uid-1", null)).Miss.ShouldBe(RouteMiss.Forbidden);

    /// <summary>Over random tables and scopes: the answer is that of a table that holds nothing else than what is in scope.</summary>
    [Fact]
    public void Routing_in_a_scope_is_routing_without_the_rest()
    {
        var random = new Random(5);
        string[] names = ["a", "b", "c", "d"];
        var statuses = Enum.GetValues<DeploymentStatus>();
        string Pick() => names[random.Next(names.Length)];
        for (var i = 0; i < 20_000; i++)
        {
            var routes = Enumerable.Range(1, random.Next(6)).Select(id => Route(id, Pick(), random.Next(2) == 0 ? Pick() : null,
                random.Next(3) > 0 ? DeploymentStatus.Running : statuses[random.Next(statuses.Length)], random.Next(3) == 0 ? [Pick()] : [])).ToArray();
            var scope = RouteScope.Of(
                random.Next(3) == 0 ? null : Enumerable.Range(1, 5).Where(_ => random.Next(2) == 0).Select(id => $"uid-{id}"),
                random.Next(3) == 0 ? null : names.Where(_ => random.Next(2) == 0));
            foreach (var name in names)
            {
                // only the names that may be asked for are left: a route keeps the name that is asked for where it may be asked by it
                var inScope = new RouteTable(routes.Where(route => scope.Allows(route, name)));
                var (expected, actual, whole) = (inScope.Find(name), new RouteTable(routes).Find(name, scope), new RouteTable(routes).Find(name));

                actual.Route.ShouldBe(expected.Route);
                if (actual.Route is { } route)
                    scope.Allows(route, name).ShouldBeTrue();
                else if (actual.Miss == RouteMiss.Forbidden)
                    (expected.Miss, whole.Route is not null || whole.Miss != RouteMiss.NotFound).ShouldBe((RouteMiss.NotFound, true));
                else
                    actual.Miss.ShouldBe(expected.Miss);
            }
        }
    }

    private static RouteScope Scope(string? deployments, string? models) => RouteScope.Of(Split(deployments), Split(models));

    private static string[]? Split(string? list) => list?.Split(',', StringSplitOptions.RemoveEmptyEntries);

    private static ModelRoute Route(int id, string model, string? served = null, DeploymentStatus status = DeploymentStatus.Running, string[]? lora = null) =>
        new(id, status, served, model, lora ?? [], "tests", DateTimeOffset.UnixEpoch, new Uri("http://127.0.0.1:41000"), "key") { DeploymentUid = $"uid-{id}" };
}
