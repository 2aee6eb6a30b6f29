using System.Reflection;
using Microsoft.Extensions.Logging;
using ModelHost.Agent;
using ModelHost.Hosting;

namespace ModelHost.Tests.Observability;

public sealed class LogEventTests
{
    [Fact]
    public void Each_kind_of_log_line_has_an_id_of_its_own()
    {
        var lines = ((Assembly[])[typeof(ServeHost).Assembly, typeof(LocalNode).Assembly]).SelectMany(assembly => assembly.GetTypes())
            .SelectMany(type => type.GetMethods(BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
            .Select(method => (Method: $"{method.DeclaringType!.Name}.{method.Name}", Line: method.GetCustomAttribute<LoggerMessageAttribute>()))
            .Where(found => found.Line is not null).ToArray();

        lines.Length.ShouldBeGreaterThan(30);
        lines.GroupBy(found => found.Line!.EventId).Where(group => group.Count() > 1).Select(group => $"{group.Key}: {string.Join(", ", group.Select(found => found.Method))}").ShouldBeEmpty();
    }
}
