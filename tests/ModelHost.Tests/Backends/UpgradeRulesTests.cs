using ModelHost.Features.Backends;

namespace ModelHost.Tests.Backends;

/// <summary>When a backend is not what it could be: by version, then by digest, then by what other nodes have.</summary>
public sealed class UpgradeRulesTests
{
    private const string A = "sha256:aa", B = "sha256:bb";

    private static BackendHere On(int node, string version, string digest = "", BackendForm form = BackendForm.Folder, int day = 1) =>
        new(new BackendNode(node, $"gpu-{node}", "online"), "x", form) { Version = version, Digest = digest, InstalledAt = DateTimeOffset.UnixEpoch.AddDays(day) };

    private static UpgradeRead? Find(BackendOffer? offer, params BackendHere[] installed) => UpgradeRules.Find("x", installed, offer);

    [Fact]
    public void Another_version_is_an_upgrade_and_the_same_is_none()
    {
        Find(new BackendOffer("1.0", null), On(1, "1.0", A)).ShouldBeNull();
        var found = Find(new BackendOffer("1.1", null), On(1, "1.0", A)).ShouldNotBeNull();
        (found.BackendName, found.InstalledVersion, found.AvailableVersion, found.AvailableDigest, found.NodeDrift).ShouldBe(("x", "1.0", "1.1", null, null));
    }

    [Fact]
    public void A_version_where_there_was_none_is_an_upgrade()
    {
        var found = Find(new BackendOffer("1.0", null), On(1, "", A)).ShouldNotBeNull();
        (found.InstalledVersion, found.AvailableVersion).ShouldBe(("", "1.0"));
    }

    [Fact]
    public void Without_versions_the_digest_decides_and_one_that_is_missing_is_old()
    {
        Find(new BackendOffer("", A), On(1, "", A)).ShouldBeNull();
        var changed = Find(new BackendOffer("", B), On(1, "", A)).ShouldNotBeNull();
        (changed.InstalledVersion, changed.AvailableVersion, changed.InstalledDigest, changed.AvailableDigest).ShouldBe(("", "", A, B));
        var unknown = Find(new BackendOffer("", B), On(1, "", "")).ShouldNotBeNull();
        (unknown.InstalledDigest, unknown.AvailableDigest).ShouldBe((null, B));
        // what the registry does not tell is no upgrade
        Find(new BackendOffer("", null), On(1, "", A)).ShouldBeNull();
        Find(null, On(1, "1.0", A)).ShouldBeNull();
    }

    [Fact]
    public void Nodes_that_differ_from_most_are_drift_even_if_nothing_newer_is_offered()
    {
        var found = Find(new BackendOffer("1.1", null), On(1, "1.1", A), On(2, "1.1", A), On(3, "1.0", B)).ShouldNotBeNull();
        (found.InstalledVersion, found.AvailableVersion).ShouldBe(("1.1", "1.1"));
        found.NodeDrift.ShouldBe([new DriftRead("3", "gpu-3", "1.0", B)]);

        var unoffered = Find(null, On(1, "", A), On(2, "", B, day: 2)).ShouldNotBeNull();
        // as many of each: what came last counts
        unoffered.InstalledDigest.ShouldBe(B);
        unoffered.NodeDrift.ShouldBe([new DriftRead("1", "gpu-1", null, A)]);
    }

    [Fact]
    public void Release_from_a_mirror_is_the_same_and_one_that_was_changed_in_its_place_is_not()
    {
        static BackendHere From(int node, string repository, string digest) => On(node, "0.11.0", digest, BackendForm.BuiltIn) with { Uri = $"{repository}:v0.11.0" };

        Find(null, From(1, "vllm/vllm-openai", A), From(2, "registry.example:5000/vllm", B)).ShouldBeNull();
        Find(null, From(1, "vllm/vllm-openai", A), From(2, "vllm/vllm-openai", B)).ShouldNotBeNull().NodeDrift!.Count.ShouldBe(1);
    }

    [Fact]
    public void Releases_of_an_image_are_compared_as_releases()
    {
        Find(new BackendOffer("0.11.0", null, IsRelease: true), On(1, "0.11.0", A, BackendForm.BuiltIn)).ShouldBeNull();
        Find(new BackendOffer("0.11.0", null, IsRelease: true), On(1, "0.12.0", A, BackendForm.BuiltIn)).ShouldBeNull();
        Find(new BackendOffer("0.11.0", null, IsRelease: true), On(1, "0.9.2", A, BackendForm.BuiltIn)).ShouldNotBeNull().AvailableVersion.ShouldBe("0.11.0");
        Find(new BackendOffer("", null, IsRelease: true), On(1, "0.9.2", A, BackendForm.BuiltIn)).ShouldBeNull();
    }
}
