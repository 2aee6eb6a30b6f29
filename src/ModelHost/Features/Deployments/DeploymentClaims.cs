using Microsoft.EntityFrameworkCore;
using ModelHost.Core.Deployments;
using ModelHost.Data;

namespace ModelHost.Features.Deployments;

/// <summary>Takes port and public names for a deployment that was found running, as far as they are free.</summary>
internal static class DeploymentClaims
{
    /// <summary>Claims what the deployment does not hold yet; what others hold is said in <see cref="Deployment.Conflict"/>.</summary>
    public static async Task ClaimAsync(ModelHostDbContext db, Deployment row, LaunchSpec spec, CancellationToken cancellationToken)
    {
        var said = new List<string>();
        var holder = await db.Deployments.AsNoTracking().Where(d => d.NodeId == row.NodeId && d.ReservedPort == spec.Port && d.Id != row.Id)
            .Select(d => (int?)d.Id).FirstOrDefaultAsync(cancellationToken);
        row.ReservedPort = holder is null ? spec.Port : null;
        if (holder is not null)
            said.Add($"Its port {spec.Port} is held by deployment {holder}.");

        var names = spec.LoraModules.Select(module => module.Name).Append(spec.PublicName).Distinct().ToArray();
        var held = await db.PublicNames.AsNoTracking().Where(n => EF.Constant(names).Contains(n.Name)).ToListAsync(cancellationToken);
        db.PublicNames.AddRange(names.Except(held.Select(n => n.Name)).Select(name => new PublicName { Name = name, DeploymentId = row.Id }));
        var taken = held.Where(n => n.DeploymentId != row.Id).ToArray();
        row.NamesTaken = taken.Length > 0;
        said.AddRange(taken.Select(n => $"Its name '{n.Name}' is held by deployment {n.DeploymentId}; no request reaches it by name."));

        var text = string.Join(' ', said.Prepend("It was found running."));
        row.Conflict = said.Count == 0 ? null : text.Length <= MaxText ? text : text[..MaxText];
    }

    private const int MaxText = 1000;
}
