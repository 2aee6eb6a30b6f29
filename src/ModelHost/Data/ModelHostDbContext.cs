using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Configs;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;

namespace ModelHost.Data;

/// <summary>Everything that is stored. One model; a context type per provider carries its migrations.</summary>
internal abstract class ModelHostDbContext(DbContextOptions options) : DbContext(options)
{
    public DbSet<Node> Nodes => Set<Node>();

    public DbSet<NodeSample> NodeSamples => Set<NodeSample>();

    public DbSet<NodeSummary> NodeSummaries => Set<NodeSummary>();

    public DbSet<Deployment> Deployments => Set<Deployment>();

    public DbSet<PublicName> PublicNames => Set<PublicName>();

    public DbSet<IdempotencyRecord> IdempotencyRecords => Set<IdempotencyRecord>();

    public DbSet<SettingValue> Settings => Set<SettingValue>();

    public DbSet<SavedConfig> Configs => Set<SavedConfig>();

    public DbSet<ApiKey> ApiKeys => Set<ApiKey>();

    public DbSet<Run> Runs => Set<Run>();

    public DbSet<FormerKey> FormerKeys => Set<FormerKey>();

    public DbSet<UsageRow> Usage => Set<UsageRow>();

    public DbSet<UsageMark> UsageMarks => Set<UsageMark>();

    public DbSet<Tombstone> Tombstones => Set<Tombstone>();

    public DbSet<Gallery> Galleries => Set<Gallery>();

    public DbSet<Job> Jobs => Set<Job>();

    public DbSet<InstalledModel> InstalledModels => Set<InstalledModel>();

    public DbSet<InstalledBackend> InstalledBackends => Set<InstalledBackend>();

    public DbSet<JoinToken> JoinTokens => Set<JoinToken>();

    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder)
    {
        // SQLite can neither sort nor compare a DateTimeOffset
        configurationBuilder.Properties<DateTimeOffset>().HaveConversion<UtcTicks>();
        configurationBuilder.Properties<Enum>().HaveConversion<string>().HaveMaxLength(32);
        configurationBuilder.Properties<string>().HaveMaxLength(255);
    }

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        modelBuilder.Entity<Node>(node =>
        {
            node.HasIndex(n => n.Uid).IsUnique();
            node.Property(n => n.ContainerRuntime).HasMaxLength(32);
            node.Property(n => n.Cordoned).HasMaxLength(8192);
        });
        modelBuilder.Entity<NodeSample>(sample => StoreFigures(sample));
        modelBuilder.Entity<NodeSummary>(summary => StoreFigures(summary));
        modelBuilder.Entity<JoinToken>().HasIndex(token => token.Hash).IsUnique();
        modelBuilder.Entity<Deployment>(deployment =>
        {
            deployment.HasIndex(d => d.Uid).IsUnique();
            // a deployment that is not active has no reserved port, and NULLs are all different
            deployment.HasIndex(d => new { d.NodeId, d.ReservedPort }).IsUnique();
            deployment.HasOne<Node>().WithMany().HasForeignKey(d => d.NodeId).OnDelete(DeleteBehavior.Restrict);
            deployment.Property(d => d.Version).IsConcurrencyToken();
            deployment.Property(d => d.Spec).HasMaxLength(1024 * 1024);
            deployment.Property(d => d.EnvValues).HasMaxLength(1024 * 1024);
            deployment.Property(d => d.LastError).HasMaxLength(16 * 1024);
            deployment.Property(d => d.ImageDigest).HasMaxLength(512);
            deployment.Property(d => d.Conflict).HasMaxLength(1024);
        });
        modelBuilder.Entity<Run>(run =>
        {
            run.HasOne<Deployment>().WithMany().HasForeignKey(r => r.DeploymentId).OnDelete(DeleteBehavior.Cascade);
            run.Property(r => r.Error).HasMaxLength(16 * 1024);
        });
        modelBuilder.Entity<UsageRow>(usage =>
        {
            usage.HasKey(u => new { u.Day, u.KeyId, u.DeploymentUid });
            usage.HasIndex(u => new { u.KeyId, u.Day });
            usage.HasIndex(u => new { u.DeploymentUid, u.Day });
        });
        modelBuilder.Entity<UsageMark>().HasKey(mark => mark.NodeUid);
        modelBuilder.Entity<FormerKey>().Property(key => key.Id).ValueGeneratedNever();
        modelBuilder.Entity<Tombstone>().HasKey(tombstone => tombstone.Uid);
        modelBuilder.Entity<PublicName>(name =>
        {
            name.HasKey(n => n.Name);
            name.HasOne<Deployment>().WithMany().HasForeignKey(n => n.DeploymentId).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<IdempotencyRecord>(record =>
        {
            record.HasKey(r => r.Scope);
            record.HasIndex(r => r.CreatedAt);
            record.Property(r => r.Body).HasMaxLength(1024);
        });
        modelBuilder.Entity<SettingValue>(setting =>
        {
            setting.HasKey(s => s.Key);
            setting.Property(s => s.Value).HasMaxLength(16 * 1024);
        });
        modelBuilder.Entity<SavedConfig>(config =>
        {
            config.HasIndex(c => c.Name).IsUnique();
            config.Property(c => c.Payload).HasMaxLength(1024 * 1024);
            config.Property(c => c.EnvValues).HasMaxLength(1024 * 1024);
        });
        modelBuilder.Entity<ApiKey>(key =>
        {
            key.HasIndex(k => k.Hash).IsUnique();
            key.HasOne<ApiKey>().WithMany().HasForeignKey(k => k.MakerId).OnDelete(DeleteBehavior.Cascade);
            key.Property(k => k.Deployments).HasMaxLength(64 * 1024);
            key.Property(k => k.Models).HasMaxLength(512 * 1024);
        });
        modelBuilder.Entity<Gallery>(gallery =>
        {
            gallery.HasIndex(g => new { g.Kind, g.Name }).IsUnique();
            gallery.Property(g => g.Url).HasMaxLength(2048);
            gallery.Property(g => g.Mirrors).HasMaxLength(64 * 1024);
            gallery.Property(g => g.Verification).HasMaxLength(64 * 1024);
        });
        modelBuilder.Entity<Job>(job =>
        {
            job.HasIndex(j => j.Uid).IsUnique();
            job.Property(j => j.Kind).HasMaxLength(64);
            job.Property(j => j.Request).HasMaxLength(4 * 1024 * 1024);
            job.Property(j => j.Status).HasMaxLength(1024 * 1024);
        });
        modelBuilder.Entity<InstalledModel>(model =>
        {
            model.HasIndex(m => m.NameKey).IsUnique();
            foreach (var text in (string[])[nameof(InstalledModel.Config), nameof(InstalledModel.Metadata), nameof(InstalledModel.Files), nameof(InstalledModel.Nodes), nameof(InstalledModel.Request), nameof(InstalledModel.Details)])
                model.Property(text).HasMaxLength(4 * 1024 * 1024);
        });
        modelBuilder.Entity<InstalledBackend>(backend =>
        {
            backend.HasIndex(b => new { b.NodeId, b.Name }).IsUnique();
            backend.HasOne<Node>().WithMany().HasForeignKey(b => b.NodeId).OnDelete(DeleteBehavior.Cascade);
            backend.Property(b => b.Uri).HasMaxLength(2048);
            backend.Property(b => b.GalleryUrl).HasMaxLength(2048);
            backend.Property(b => b.Recipe).HasMaxLength(1024 * 1024);
            backend.Property(b => b.Details).HasMaxLength(4 * 1024 * 1024);
        });
    }

    private static void StoreFigures<T>(EntityTypeBuilder<T> figures) where T : StoredFigures
    {
        figures.HasKey(f => f.Key);
        figures.Property(f => f.Key).ValueGeneratedNever();
    }

    private sealed class UtcTicks() : ValueConverter<DateTimeOffset, long>(time => time.UtcTicks, ticks => new DateTimeOffset(ticks, TimeSpan.Zero));
}

/// <summary>The model on SQLite.</summary>
internal sealed class SqliteModelHostDbContext(DbContextOptions<SqliteModelHostDbContext> options) : ModelHostDbContext(options);
