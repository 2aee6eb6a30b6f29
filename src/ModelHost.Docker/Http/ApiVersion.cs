using System.Globalization;

namespace ModelHost.Docker.Http;

/// <summary>A version of the Docker Engine API, <c>1.47</c> for example. 1.9 is older than 1.41.</summary>
internal readonly record struct ApiVersion(int Major, int Minor) : IComparable<ApiVersion>
{
    /// <summary>The newest version whose answers this client knows; a newer engine still speaks it.</summary>
    public static ApiVersion Newest => new(1, 47);

    /// <summary>The oldest: Docker 20.10 and Podman 4.</summary>
    public static ApiVersion Oldest => new(1, 41);

    public static bool TryParse(string? text, out ApiVersion version)
    {
        version = default;
        if (text?.Split('.') is not [var first, var second])
            return false;
        if (!int.TryParse(first, NumberStyles.None, CultureInfo.InvariantCulture, out var major)
            || !int.TryParse(second, NumberStyles.None, CultureInfo.InvariantCulture, out var minor))
            return false;
        version = new(major, minor);
        return true;
    }

    public static ApiVersion Lower(ApiVersion one, ApiVersion other) => one.CompareTo(other) <= 0 ? one : other;

    public int CompareTo(ApiVersion other) => (Major, Minor).CompareTo((other.Major, other.Minor));

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Major}.{Minor}");
}
