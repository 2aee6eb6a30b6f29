using ModelHost.Core.Access;

namespace ModelHost.Tests.ApiKeys;

public sealed class ApiKeyTextTests
{
    [Fact]
    public void A_key_is_160_random_bits_with_a_prefix_and_a_checksum()
    {
        var keys = Enumerable.Range(0, 1000).Select(i => ApiKeyText.Make(isTemporary: i % 2 == 1)).ToArray();

        keys.ShouldBeUnique();
        foreach (var (key, i) in keys.Select((key, i) => (key, i)))
        {
            key.ShouldMatch(i % 2 == 1 ? "^mh_tmp_[0-9a-f]{48}$" : "^mh_sk_[0-9a-f]{48}$");
            key.Length.ShouldBeLessThanOrEqualTo(ApiKeyText.MaxLength);
            ApiKeyText.IsWellFormed(key).ShouldBeTrue();
            key.ShouldStartWith(ApiKeyText.Shown(key));
            ApiKeyText.Shown(key).Length.ShouldBe(i % 2 == 1 ? 13 : 12);
        }
        // every digit of the random part takes every value
        for (var place = 6; place < 46; place++)
            keys.Where(key => key.StartsWith("mh_sk_", StringComparison.Ordinal)).Select(key => key[place]).Distinct().Count().ShouldBe(16);
    }

    /// <summary>CRC-32C as RFC 3720 has it, so that other programs can check keys.</summary>
    [Fact]
    public void The_checksum_is_a_known_one() =>
        ApiKeyText.IsWellFormed("mh_sk_" + new string('0', 40) + Crc32C("mh_sk_" + new string('0', 40))).ShouldBeTrue();

    [Fact]
    public void One_wrong_digit_is_found_wherever_it_is()
    {
        foreach (var key in (string[])[ApiKeyText.Make(false), ApiKeyText.Make(true)])
        {
            for (var place = 0; place < key.Length; place++)
            {
                foreach (var c in (char[])['0', '7', 'f', 'F', '_', 'g', ' ', '\0', 'é', '０'])
                {
                    var changed = key[..place] + c + key[(place + 1)..];
                    ApiKeyText.IsWellFormed(changed).ShouldBe(changed == key, changed);
                }
                ApiKeyText.IsWellFormed(key.Remove(place, 1)).ShouldBeFalse();
                if (place > 0 && key[place] != key[place - 1])
                    ApiKeyText.IsWellFormed(key[..(place - 1)] + key[place] + key[place - 1] + key[(place + 1)..]).ShouldBeFalse("two digits changed places");
            }
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("mh_sk_")]
    [InlineData("mh_tmp_")]
    [InlineData("sk-proj-1234567890")]
    [InlineData("mh_admin_0123456789012345678901234567890123456789")]
    public void Other_texts_are_no_keys(string text) => ApiKeyText.IsWellFormed(text).ShouldBeFalse();

    [Fact]
    public void Keys_in_another_form_are_none()
    {
        var key = ApiKeyText.Make(isTemporary: false);
        foreach (var text in (string[])
            [
                key.ToUpperInvariant(), "MH_SK_" + key[6..], "mh_sk_" + key[6..].ToUpperInvariant(), "mh_tmp_" + key[6..], " " + key, key + " ", key + "\n", key + key, key[..^1],
                "mh-sk-" + key[6..], key + new string('0', 100_000),
            ])
            ApiKeyText.IsWellFormed(text).ShouldBeFalse(text.Length < 200 ? text : "long");
    }

    private static string Crc32C(string text)
    {
        var crc = uint.MaxValue;
        foreach (var c in text)
        {
            crc ^= c;
            for (var bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ ((crc & 1) * 0x82F63B78);
        }
        return (~crc).ToString("x8", System.Globalization.CultureInfo.InvariantCulture);
    }
}
